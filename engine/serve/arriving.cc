// The part of the scheduler that deals with prefixes which are still on their way.
#include <algorithm>

#include "engine/serve/scheduler.h"

namespace cairn::engine {

// What has come since the last step is an ordinary sequence, or to be computed; neither waits.
void Scheduler::NoteArrivals() {
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->away || sequence->ended) continue;
    if (!sequence->session->arriving() || sequence->session->on_its_way()) continue;
    if (!sequence->session->AwaitAll().ok()) GiveUpArrival(*sequence);
  }
}

// All that have come, or else one that has not: its loading then hides behind its own computing,
// while that of the others goes on anyway.
void Scheduler::KeepArrivingApart(std::vector<Sequence*>& sequences) {
  const auto arrives = [](const Sequence* s) { return s->session->arriving(); };
  if (std::ranges::all_of(sequences, arrives)) {
    sequences.resize(std::min<size_t>(sequences.size(), 1));
  } else {
    std::erase_if(sequences, arrives);
  }
}

void Scheduler::GiveUpArrival(Sequence& sequence) {
  sequence.slot->cache().StillIntact();  // it is not: nothing of it is put
  Recompute(sequence);
}

// From nothing, and without the cache: what was restored did not hold.
void Scheduler::Recompute(Sequence& sequence) {
  ++metrics_.cache_failures;
  sequence.cache_usable = false;
  sequence.settled = true;
  sequence.Renew(runner_);
}

}  // namespace cairn::engine
