// attach_client.h: the client's side of attach_protocol.h: takes the daemon's arena and its pool in
// GPU memory, gives it staging memory.
//
// Threads:   any; one connection a call.
// Errors:    UNAVAILABLE (nobody there, or a wrong answer), DEADLINE_EXCEEDED, or what the daemon
// answered.
#ifndef CAIRN_CACHE_CLIENT_ATTACH_CLIENT_H_
#define CAIRN_CACHE_CLIENT_ATTACH_CLIENT_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "store/base/status.h"
#include "store/device/gpu_memory.h"
#include "store/device/shared_memory.h"
#include "store/device/socket.h"

namespace cairn::cache {

class AttachClient {
 public:
  // `door` outlives this. `token` has kTokenBytes.
  AttachClient(store::SocketDoor& door, std::string path, std::string token, absl::Duration timeout)
      : door_(door), path_(std::move(path)), token_(std::move(token)), timeout_(timeout) {}

  // Mapped read-only; `bytes` is what the registration said.
  absl::StatusOr<store::SharedMemory> TakeArena(uint64_t bytes);

  // Not mapped yet: Gpu::Import does that. `bytes` as above.
  absl::StatusOr<store::GpuExport> TakeGpuPool(uint64_t bytes);

  // The id under which commits name this piece.
  absl::StatusOr<uint32_t> GiveStaging(int descriptor, uint64_t bytes);

  // For LookupLane.
  absl::StatusOr<std::unique_ptr<store::Connection>> OpenLookups();

 private:
  struct Reply;
  absl::StatusOr<Reply> Ask(uint32_t kind, uint64_t bytes, int descriptor);

  store::SocketDoor& door_;
  const std::string path_;
  const std::string token_;
  const absl::Duration timeout_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_ATTACH_CLIENT_H_
