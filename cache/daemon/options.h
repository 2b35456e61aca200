// options.h: cairnd's settings, from a TOML file and flags. A flag wins over the file, the file
// over the default.
//
// Threads: values. Units: bytes. Errors: INVALID_ARGUMENT naming the key or flag and what it may
// be.
#ifndef CAIRN_CACHE_DAEMON_OPTIONS_H_
#define CAIRN_CACHE_DAEMON_OPTIONS_H_

#include <cstdint>
#include <string>

#include "cache/client/cache_api.h"
#include "store/base/status.h"

namespace CLI {
class App;
}

namespace cairn::cache {

// As written by people; ParseSettings makes numbers of them.
struct DaemonText {
  std::string config = {};  // a TOML file; empty: none
  std::string dir = {};
  std::string socket = {};
  std::string admin_socket = {};
  std::string listen = {};
  std::string bulk_listen = {};
  std::string tls_cert = {};
  std::string tls_key = {};
  std::string tls_client_ca = {};
  std::string host_bytes = {};
  std::string huge_pages = {};
  std::string gpu_bytes = {};
  std::string disk_bytes = {};
  std::string segment_bytes = {};
  std::string policy = {};
  std::string scrub_rate = {};
  std::string tenant_keys = {};
  std::string log_level = {};
  bool check = false;
};

struct DaemonSettings {
  std::string dir;  // the data directory
  std::string socket;
  std::string admin_socket;
  std::string listen;       // "host:port"; empty: Unix socket only
  std::string bulk_listen;  // "host:port"; empty: no bulk port
  // PEM files for both of these ports. Empty: no TLS, and without the last no client certificates.
  std::string tls_cert, tls_key, tls_client_ca;
  uint64_t host_bytes = 0;
  bool huge_pages = false;
  uint64_t gpu_bytes = 0;  // 0: none
  uint64_t disk_bytes = 0;
  uint64_t segment_bytes = 0;
  uint64_t scrub_bytes_per_second = 0;  // 0: off
  CheckpointPolicy policy;
  std::string tenant_keys;  // file; empty: the default tenant only
  std::string log_level;
};

void AddDaemonFlags(CLI::App* app, DaemonText& text);

// Reads text.config if given, fills in defaults, checks everything.
absl::StatusOr<DaemonSettings> ParseSettings(DaemonText text);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_DAEMON_OPTIONS_H_
