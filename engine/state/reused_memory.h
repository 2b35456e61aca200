// reused_memory.h: memory for copies that are made, given away and let go again and again. What
// has been let go is handed out again: the first touch of new memory takes several times as long as
// the copy.
//
// Threads:   any. Ownership: of the holders.
// Bounds:    of what nobody holds, the process keeps the kReusedMax pieces that were let go last.
#ifndef CAIRN_ENGINE_STATE_REUSED_MEMORY_H_
#define CAIRN_ENGINE_STATE_REUSED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace cairn::engine {

inline constexpr size_t kReusedMax = 8;

// `bytes` of anything: what it held before, or nothing yet. The caller writes all of it.
std::shared_ptr<uint8_t> TakeReused(size_t bytes);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_STATE_REUSED_MEMORY_H_
