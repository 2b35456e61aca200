// json_out.h: where a command's figures go, for programs that read them.
//
// Threads: one caller a path. Errors: UNAVAILABLE naming the file.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_JSON_OUT_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_JSON_OUT_H_

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "store/base/status.h"

namespace cairn::engine {

// `path` "-" is stdout. `Json`: nlohmann::json, or ordered_json.
template <typename Json>
absl::Status WriteJson(const std::string& path, const Json& figures) {
  if (path == "-") {
    std::printf("%s\n", figures.dump(2).c_str());
    return absl::OkStatus();
  }
  std::ofstream out(path);
  out << figures.dump(2) << '\n';
  out.close();
  if (!out) return absl::UnavailableError(absl::StrCat("cannot write ", path));
  return absl::OkStatus();
}

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_JSON_OUT_H_
