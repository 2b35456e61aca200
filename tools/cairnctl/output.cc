#include "tools/cairnctl/output.h"

#include <algorithm>
#include <array>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cairn::ctl {
namespace {

// "gpu+host+disk", "host", "-".
std::string Tiers(bool gpu, bool host, bool disk) {
  std::string tiers;
  const auto add = [&](bool there, const char* name) {
    if (there) absl::StrAppend(&tiers, tiers.empty() ? "" : "+", name);
  };
  add(gpu, "gpu");
  add(host, "host");
  add(disk, "disk");
  return tiers.empty() ? "-" : tiers;
}

double BytesPerSecond(const v1::VerifyEvent& event) {
  const double seconds = static_cast<double>(std::max<uint64_t>(event.elapsed_millis(), 1)) / 1e3;
  return static_cast<double>(event.bytes()) / seconds;
}

std::string HumanRate(double bytes_per_second) {
  return HumanBytes(static_cast<uint64_t>(bytes_per_second)) + "/s";
}

}  // namespace

std::string HexOf(const std::string& bytes) { return absl::BytesToHexString(bytes); }

std::string HumanBytes(uint64_t bytes) {
  static constexpr std::array<const char*, 6> kUnits = {"B", "kB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.95 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string HumanAge(int64_t seconds) {
  if (seconds < 120) return absl::StrCat(std::max<int64_t>(seconds, 0), " s");
  if (seconds < 2 * 3600) return absl::StrCat(seconds / 60, " min");
  if (seconds < 2 * 86400) return absl::StrCat(seconds / 3600, " h");
  return absl::StrCat(seconds / 86400, " d");
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      if (i > 0) out += "  ";
      if (i > 0) out += padding;
      out += row[i];
      if (i == 0 && row.size() > 1) out += padding;
    }
    out += '\n';
  }
  return out;
}

nlohmann::json StatsJson(const v1::StatsResponse& stats) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& count : stats.counts()) json[count.name()] = count.value();
  return json;
}

std::string StatsText(const v1::StatsResponse& stats) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& count : stats.counts()) {
    const bool bytes = absl::EndsWith(count.name(), "_bytes");
    rows.push_back(
        {count.name(), absl::StrCat(count.value()), bytes ? HumanBytes(count.value()) : ""});
  }
  return Table(rows);
}

nlohmann::json ListJson(const v1::ListResponse& list) {
  nlohmann::json json = nlohmann::json::array();
  for (const v1::ListedPrefix& p : list.prefixes()) {
    json.push_back({{"digest", HexOf(p.digest())},
                    {"namespace", HexOf(p.namespace_root())},
                    {"index", p.index()},
                    {"rows_host", p.rows_host()},
                    {"rows_disk", p.rows_disk()},
                    {"checkpoint_host", p.checkpoint_host()},
                    {"checkpoint_disk", p.checkpoint_disk()},
                    {"rows_gpu", p.rows_gpu()},
                    {"checkpoint_gpu", p.checkpoint_gpu()},
                    {"pinned", p.pinned()},
                    {"leases", p.leases()},
                    {"last_used_wall_micros", p.last_used_wall_micros()},
                    {"bytes", p.bytes()}});
  }
  return json;
}

std::string ListText(const v1::ListResponse& list, int64_t now_micros) {
  std::vector<std::vector<std::string>> rows = {{"digest", "namespace", "block", "tokens", "rows",
                                                 "checkpoint", "bytes", "used", "leases",
                                                 "pinned"}};
  for (const v1::ListedPrefix& p : list.prefixes()) {
    rows.push_back({HexOf(p.digest()).substr(0, 16), HexOf(p.namespace_root()).substr(0, 8),
                    absl::StrCat(p.index()), absl::StrCat((uint64_t{p.index()} + 1) * 128),
                    Tiers(p.rows_gpu(), p.rows_host(), p.rows_disk()),
                    Tiers(p.checkpoint_gpu(), p.checkpoint_host(), p.checkpoint_disk()),
                    HumanBytes(p.bytes()),
                    HumanAge((now_micros - p.last_used_wall_micros()) / 1'000'000),
                    absl::StrCat(p.leases()), p.pinned() ? "yes" : "-"});
  }
  return Table(rows);
}

std::string VerifyProgress(const v1::VerifyEvent& event) {
  // Entries come and go meanwhile.
  const uint64_t total = std::max(event.total_bytes(), event.bytes());
  const double rate = BytesPerSecond(event);
  std::string line = absl::StrCat("verified ", event.entries(), " of ",
                                  std::max(event.total_entries(), event.entries()), " entries, ",
                                  HumanBytes(event.bytes()), " of ", HumanBytes(total));
  if (rate > 0) {
    const double left = static_cast<double>(total - event.bytes()) / rate;
    absl::StrAppend(&line, ", ", HumanRate(rate), ", ", HumanAge(static_cast<int64_t>(left)),
                    " left");
  }
  if (event.damaged() > 0) absl::StrAppend(&line, ", ", event.damaged(), " damaged");
  return line;
}

nlohmann::json VerifyJson(const v1::VerifyEvent& report) {
  return {{"entries", report.entries()},
          {"bytes", report.bytes()},
          {"total_entries", report.total_entries()},
          {"total_bytes", report.total_bytes()},
          {"damaged", report.damaged()},
          {"damaged_host", report.damaged_host()},
          {"damaged_disk", report.damaged_disk()},
          {"damaged_gpu", report.damaged_gpu()},
          {"healed", report.healed()},
          {"unreadable", report.unreadable()},
          {"seconds", static_cast<double>(report.elapsed_millis()) / 1e3},
          {"bytes_per_second", BytesPerSecond(report)}};
}

std::string VerifyText(const v1::VerifyEvent& report) {
  std::string text = absl::StrFormat("verified %u entries, %s in %.1f s (%s): %u damaged",
                                     report.entries(), HumanBytes(report.bytes()),
                                     static_cast<double>(report.elapsed_millis()) / 1e3,
                                     HumanRate(BytesPerSecond(report)), report.damaged());
  if (report.damaged() > 0) {
    absl::StrAppend(&text, " (", report.damaged_host(), " in host memory, ", report.damaged_disk(),
                    " on disk, ", report.damaged_gpu(), " in GPU memory); withdrawn, ",
                    report.healed(),
                    " of them with a good copy in another tier, the others are misses");
  }
  if (report.unreadable() > 0) {
    absl::StrAppend(&text, "; ", report.unreadable(), " could not be read and stay");
  }
  return text + "\n";
}

}  // namespace cairn::ctl
