#include "cache/daemon/options.h"

#include <toml++/toml.h>
#include <CLI/CLI.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/client/default_paths.h"
#include "store/base/bytes_text.h"
#include "store/base/limits.h"
#include "store/device/byte_stream.h"

namespace cairn::cache {
namespace {

struct Key {
  const char* name;
  std::string DaemonText::*field;
  const char* fallback;
  const char* help;
};

constexpr Key kKeys[] = {
    {"dir", &DaemonText::dir, "", "data directory (required)"},
    {"socket", &DaemonText::socket, "", "Unix socket for engines"},
    {"admin_socket", &DaemonText::admin_socket, "", "Unix socket for operators"},
    {"listen", &DaemonText::listen, "",
     "HOST:PORT for engines on other hosts (without tls_cert in the clear: trusted networks only)"},
    {"bulk_listen", &DaemonText::bulk_listen, "",
     "HOST:PORT of the bulk port, or off [with listen: its host, any free port]"},
    {"tls_cert", &DaemonText::tls_cert, "",
     "PEM file: certificate (and chain) for listen and bulk_listen, read at the start"},
    {"tls_key", &DaemonText::tls_key, "", "PEM file: its key"},
    {"tls_client_ca", &DaemonText::tls_client_ca, "",
     "PEM file: engines on other hosts must show a certificate of these authorities"},
    {"host_bytes", &DaemonText::host_bytes, "1GiB", "arena in host memory, taken at start"},
    {"huge_pages", &DaemonText::huge_pages, "off",
     "on: the arena takes reserved pages of 2 MiB (vm.nr_hugepages); off: ordinary memory"},
    {"gpu_bytes", &DaemonText::gpu_bytes, "off",
     "pool in the memory of the first GPU that CUDA sees, for copies of what engines on this host "
     "use again and again; or off"},
    {"disk_bytes", &DaemonText::disk_bytes, "10GiB", "limit of the segment files' sizes"},
    {"segment_bytes", &DaemonText::segment_bytes, "256MiB", "size of one segment file"},
    {"policy", &DaemonText::policy, "every:2048+ends",
     "checkpoints: full, every:N, branches, ends, joined by +, each with a TTL or without "
     "(ends:ttl=1h), or zero"},
    {"scrub_rate", &DaemonText::scrub_rate, "auto",
     "bytes a second that are re-read and verified, such as 32MiB/s; auto: all tiers in a day if "
     "they are full; off"},
    {"tenant_keys", &DaemonText::tenant_keys, "", "file of 'name=key' lines, mode 0600"},
    {"log_level", &DaemonText::log_level, "info", "debug, info, warn or error"},
};

std::string FlagOf(const char* key) {
  std::string flag = absl::StrCat("--", key);
  for (char& c : flag) {
    if (c == '_') c = '-';
  }
  return flag;
}

absl::Status ReadConfig(const std::string& path, DaemonText& text) {
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ":", error.source().begin.line, ": ", std::string(error.description())));
  }
  for (const auto& [name, value] : table) {
    const std::string key(name.str());
    const Key* known = nullptr;
    for (const Key& k : kKeys) {
      if (key == k.name) known = &k;
    }
    if (known == nullptr)
      return absl::InvalidArgumentError(absl::StrCat(path, ": unknown key '", key, "'"));
    std::string& field = text.*(known->field);
    if (!field.empty()) continue;  // a flag wins
    if (const auto string = value.value_exact<std::string>()) {
      field = *string;
    } else if (const auto number = value.value_exact<int64_t>()) {
      field = absl::StrCat(*number);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": '", key, "' must be a text or a whole number"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> BytesIn(const char* key, const std::string& text, uint64_t min,
                                 uint64_t max) {
  absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  if (!bytes.ok())
    return absl::InvalidArgumentError(
        absl::StrCat(FlagOf(key), ": ", std::string(bytes.status().message())));
  if (*bytes < min || *bytes > max) {
    return absl::InvalidArgumentError(
        absl::StrCat(FlagOf(key), " ", text, " must be between ", min, " and ", max, " bytes"));
  }
  return bytes;
}

// The bulk port goes with `listen`: other hosts' clients learn its number from the daemon.
absl::StatusOr<std::string> BulkListenOf(const DaemonText& text) {
  if (text.bulk_listen == "off" || (text.bulk_listen.empty() && text.listen.empty())) return "";
  if (text.listen.empty()) {
    return absl::InvalidArgumentError("--bulk-listen needs --listen: tickets are given out there");
  }
  const std::string& given = text.bulk_listen.empty() ? text.listen : text.bulk_listen;
  absl::StatusOr<store::HostPort> address = store::ParseHostPort(given);
  if (!address.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.bulk_listen.empty() ? "--listen" : "--bulk-listen", ": ",
                     std::string(address.status().message())));
  }
  if (!text.bulk_listen.empty()) return given;
  return given.substr(0, given.rfind(':')) + ":0";
}

absl::Status CheckTls(const DaemonText& text) {
  if (text.tls_cert.empty() != text.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key go together");
  }
  if (!text.tls_client_ca.empty() && text.tls_cert.empty()) {
    return absl::InvalidArgumentError("--tls-client-ca needs --tls-cert");
  }
  if (!text.tls_cert.empty() && text.listen.empty()) {
    return absl::InvalidArgumentError("--tls-cert needs --listen: Unix sockets have no TLS");
  }
  return absl::OkStatus();
}

// 0: off.
absl::StatusOr<uint64_t> ScrubRateOf(const std::string& text, const DaemonSettings& settings) {
  constexpr uint64_t kSecondsOfADay = 86'400;
  if (text == "off") return 0;
  if (text == "auto") {
    return (settings.host_bytes + settings.gpu_bytes + settings.disk_bytes) / kSecondsOfADay + 1;
  }
  absl::StatusOr<uint64_t> rate = ParseByteRate(text);
  if (rate.ok()) return rate;
  return absl::InvalidArgumentError(
      absl::StrCat("--scrub-rate: ", std::string(rate.status().message()), ", auto or off"));
}

}  // namespace

void AddDaemonFlags(CLI::App* app, DaemonText& text) {
  app->add_option("--config", text.config,
                  "TOML file with these settings (host_bytes for --host-bytes)");
  for (const Key& key : kKeys) {
    const std::string help =
        *key.fallback == '\0' ? key.help : absl::StrCat(key.help, " [", key.fallback, "]");
    app->add_option(FlagOf(key.name), text.*(key.field), help)->take_last();
  }
  app->add_flag("--check", text.check, "check the data directory without changing it, and end");
}

absl::StatusOr<DaemonSettings> ParseSettings(DaemonText text) {
  if (!text.config.empty()) CAIRN_RETURN_IF_ERROR(ReadConfig(text.config, text));
  for (const Key& key : kKeys) {
    if ((text.*(key.field)).empty()) text.*(key.field) = key.fallback;
  }
  if (text.dir.empty())
    return absl::InvalidArgumentError("--dir is required: the directory to keep data in");
  DaemonSettings settings;
  settings.dir = text.dir;
  settings.socket = text.socket.empty() ? DefaultSocket() : text.socket;
  settings.admin_socket = text.admin_socket.empty() ? DefaultAdminSocket() : text.admin_socket;
  settings.listen = text.listen;
  CAIRN_ASSIGN_OR_RETURN(settings.bulk_listen, BulkListenOf(text));
  CAIRN_RETURN_IF_ERROR(CheckTls(text));
  settings.tls_cert = text.tls_cert;
  settings.tls_key = text.tls_key;
  settings.tls_client_ca = text.tls_client_ca;
  settings.tenant_keys = text.tenant_keys;
  settings.log_level = text.log_level;
  constexpr uint64_t kMost = 1ull << 50;
  CAIRN_ASSIGN_OR_RETURN(settings.host_bytes,
                         BytesIn("host_bytes", text.host_bytes, 1 << 20, kMost));
  if (text.huge_pages != "on" && text.huge_pages != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--huge-pages '", text.huge_pages, "' must be on or off"));
  }
  settings.huge_pages = text.huge_pages == "on";
  if (text.gpu_bytes != "off") {
    CAIRN_ASSIGN_OR_RETURN(settings.gpu_bytes,
                           BytesIn("gpu_bytes", text.gpu_bytes, 1 << 20, kMost));
  }
  CAIRN_ASSIGN_OR_RETURN(settings.segment_bytes,
                         BytesIn("segment_bytes", text.segment_bytes, 1 << 20, 1ull << 32));
  CAIRN_ASSIGN_OR_RETURN(settings.disk_bytes,
                         BytesIn("disk_bytes", text.disk_bytes, settings.segment_bytes, kMost));
  CAIRN_ASSIGN_OR_RETURN(settings.scrub_bytes_per_second, ScrubRateOf(text.scrub_rate, settings));
  const absl::StatusOr<CheckpointPolicy> policy = CheckpointPolicy::Parse(text.policy);
  if (!policy.ok())
    return absl::InvalidArgumentError(
        absl::StrCat("--policy: ", std::string(policy.status().message())));
  settings.policy = *policy;
  for (const char* level : {"debug", "info", "warn", "error"}) {
    if (settings.log_level == level) return settings;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--log-level '", settings.log_level, "' must be debug, info, warn or error"));
}

}  // namespace cairn::cache
