// wire_server.h: the far end of the wire comparisons, in a process of its own: a real CacheServer,
// and beside it the barest gRPC stream and the barest TCP server there can be, both of which send
// as many bytes in slices of the same size out of memory that is touched and warm.
//
// Threads:   WireServe is a process's main; WireHost is used by one thread.
// Ownership: the process ends when the WireHost goes, or its parent dies (serving_child.h).
// Units:     bytes. Errors: UNAVAILABLE: it did not start.
#ifndef CAIRN_TOOLS_CAIRN_BENCH_WIRE_SERVER_H_
#define CAIRN_TOOLS_CAIRN_BENCH_WIRE_SERVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "store/base/status.h"
#include "store/device/tls_stream.h"
#include "tools/cairn-bench/serving_child.h"

namespace cairn::bench {

inline constexpr char kWireServe[] = "wire-serve";
inline constexpr char kBareStreamMethod[] = "/cairn.bench.Bare/Stream";
// What one transfer of each is.
inline constexpr uint64_t kWireBlocks = 512;
uint64_t WireBlockBytes();

// Serves until its standard input ends. `directory` is for its Unix sockets, and holds what a
// WireHost with TLS put there: then the CacheServer and the bare TCP server speak TLS.
int WireServe(const std::string& directory);

class WireHost {
 public:
  static absl::StatusOr<std::unique_ptr<WireHost>> Start(
      const std::string& directory, const std::optional<store::TlsCredentials>& tls = std::nullopt);
  int cache_port() const { return cache_port_; }  // of the CacheServer, by gRPC
  int grpc_port() const { return grpc_port_; }    // of the bare stream
  int tcp_port() const { return tcp_port_; }  // of the bare TCP server: a byte asks for a transfer

 private:
  WireHost() = default;
  std::unique_ptr<ServingChild> child_;
  int cache_port_ = 0, grpc_port_ = 0, tcp_port_ = 0;
};

}  // namespace cairn::bench

#endif  // CAIRN_TOOLS_CAIRN_BENCH_WIRE_SERVER_H_
