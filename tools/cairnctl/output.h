// output.h: what cairnctl prints: tables for people, JSON for programs.
//
// Threads: pure functions.
#ifndef CAIRN_TOOLS_CAIRNCTL_OUTPUT_H_
#define CAIRN_TOOLS_CAIRNCTL_OUTPUT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cairn/v1/admin.pb.h"

namespace cairn::ctl {

std::string HexOf(const std::string& bytes);
// "449.8 kB", "3.7 GB": three or four digits and a decimal unit.
std::string HumanBytes(uint64_t bytes);
// "3 s", "5 min", "2 h", "4 d".
std::string HumanAge(int64_t seconds);

// Columns padded to their widest cell; the first is left-aligned, the others right-aligned.
std::string Table(const std::vector<std::vector<std::string>>& rows);

nlohmann::json StatsJson(const v1::StatsResponse& stats);
std::string StatsText(const v1::StatsResponse& stats);
nlohmann::json ListJson(const v1::ListResponse& list);
// `now_micros`: wall clock, for ages.
std::string ListText(const v1::ListResponse& list, int64_t now_micros);

// How far a verification is, how fast, and how long it still takes: one line without its end.
std::string VerifyProgress(const v1::VerifyEvent& event);
// The last event.
nlohmann::json VerifyJson(const v1::VerifyEvent& report);
std::string VerifyText(const v1::VerifyEvent& report);

}  // namespace cairn::ctl

#endif  // CAIRN_TOOLS_CAIRNCTL_OUTPUT_H_
