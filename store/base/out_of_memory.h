// out_of_memory.h: what happens when the machine has no memory left: the process ends, at once.
//
// Memory whose size a request decides is taken when the process starts (the arena) or is the
// client's own (staging), and is refused by a status. What else is allocated is small, and there is
// no safe way on without it: an exception would leave tables half changed under whoever catches it
// (gRPC does, around a handler). An end at any instruction is what the store is made for.
//
// Threads: any.
#ifndef CAIRN_STORE_BASE_OUT_OF_MEMORY_H_
#define CAIRN_STORE_BASE_OUT_OF_MEMORY_H_

namespace cairn {

// From now on, failed allocations end the process instead of throwing std::bad_alloc. For main.
void EndWhenOutOfMemory();

// Says so, without allocating, and ends the process.
[[noreturn]] void OutOfMemory();

}  // namespace cairn

#endif  // CAIRN_STORE_BASE_OUT_OF_MEMORY_H_
