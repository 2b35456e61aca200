// verify_pairs.h: proves on given prompts that a hit gives what a prefill gives, to the bit.
//
// A pair is a prompt and a cut: the prompt's first `cut` tokens are prefilled from nothing, and
// again through the cache, and the logits of the last of them (and those of the MTP block) must be
// the same bits. Cuts lie at every block's end, one token before it and one after it, so hits of
// every length are followed by one token, by a whole block, and by one less. A pair that the cache
// did not serve proves nothing and is counted apart.
//
// Threads: one caller a Forward. Errors: those of Forward::Run. Units: tokens, bytes.
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_VERIFY_PAIRS_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_VERIFY_PAIRS_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/cairn_engine/divergence.h"
#include "engine/forward/forward.h"
#include "engine/resume/prefix_cache.h"
#include "store/base/digest.h"

namespace cairn::engine {

struct VerifyFigures {
  int64_t prompts = 0;
  int64_t too_short = 0;  // of them: no hit can be in them
  int64_t prompt_tokens = 0;
  int64_t boundaries = 0;  // block ends at which a hit can end
  int64_t pairs = 0;       // = equal + differing + missed + taken_back
  int64_t equal = 0;
  int64_t differing = 0;
  int64_t missed = 0;      // nothing was restored
  int64_t taken_back = 0;  // the restored rows were gone before the result was: computed again
  int64_t shorter = 0;     // of the equal and differing: hits of fewer blocks than there are
  int64_t hit_tokens = 0;
  int64_t recomputed_tokens = 0;  // behind hits
  int64_t replayed = 0;           // of the hits: from rows alone (engine/state/replay_plan.h)
  int64_t replay_token_layers = 0;
  int64_t replay_rectangle_token_layers = 0;
  uint64_t host_bytes = 0;
  uint64_t disk_bytes = 0;
  uint64_t checksum_failures = 0;

  int64_t hits() const { return equal + differing; }
};

struct Difference {
  int64_t prompt = 0;  // counted from 1
  int64_t cut = 0;
  int64_t prefix_tokens = 0;
  Divergence first;
};

class PairVerifier {
 public:
  struct Options {
    int64_t chunk = 256;         // prefill tokens a step, of the cold runs and behind hits
    size_t differences_max = 8;  // looked into; the others are only counted
    absl::Duration flush = absl::Seconds(60);                 // for the puts of one prompt
    std::function<void(const VerifyFigures&)> progress = {};  // after each prompt
  };
  // `cache` loads whatever it costs (PrefixCache::Options::always_load). All outlive this.
  PairVerifier(Forward& forward, PrefixCache& cache, Clock& clock, Options options)
      : forward_(forward), cache_(cache), clock_(clock), options_(std::move(options)) {}

  // All pairs of one prompt; its blocks are put first. OUT_OF_RANGE: prompt over the model's
  // maximum less one token. INVALID_ARGUMENT: a token outside of the vocabulary.
  absl::Status Add(std::span<const int32_t> prompt);

  const VerifyFigures& figures() const { return figures_; }
  const std::vector<Difference>& differences() const { return differences_; }

 private:
  // Of the logits at each cut, prefilled from nothing.
  absl::StatusOr<std::vector<Digest>> ColdResults(std::span<const int32_t> prompt,
                                                  std::span<const int64_t> cuts);
  absl::Status CheckPair(std::span<const int32_t> prompt, const Digest& cold);
  absl::Status Put(std::span<const int32_t> prompt);

  Forward& forward_;
  PrefixCache& cache_;
  Clock& clock_;
  const Options options_;
  VerifyFigures figures_;
  std::vector<Difference> differences_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_VERIFY_PAIRS_H_
