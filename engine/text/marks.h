// marks.h: the texts of DeepSeek-V4's marks.
//
// Threads, errors: constants.
#ifndef CAIRN_ENGINE_TEXT_MARKS_H_
#define CAIRN_ENGINE_TEXT_MARKS_H_

#include <string_view>

namespace cairn::engine {

inline constexpr std::string_view kBos = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEos = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kUser = "<｜User｜>";
inline constexpr std::string_view kAssistant = "<｜Assistant｜>";
inline constexpr std::string_view kThink = "<think>";
inline constexpr std::string_view kEndThink = "</think>";
inline constexpr std::string_view kLatestReminder = "<｜latest_reminder｜>";
inline constexpr std::string_view kDsml = "｜DSML｜";

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_MARKS_H_
