#include "engine/cairn_engine/verify_pairs.h"

#include <algorithm>
#include <map>

#include "engine/cairn_engine/run_sequence.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

// A cut of at most a block has nothing to restore: one token at least is computed.
std::vector<int64_t> CutsOf(int64_t tokens) {
  std::vector<int64_t> cuts;
  for (int64_t end = kBlockTokens; end - 1 <= tokens; end += kBlockTokens) {
    for (const int64_t cut : {end - 1, end, end + 1}) {
      if (cut > kBlockTokens && cut <= tokens) cuts.push_back(cut);
    }
  }
  return cuts;
}

// Logits at a cut and, where there is an MTP block, what it made of the token before.
Digest ResultOf(std::span<const float> logits, std::span<const float> mtp) {
  std::vector<float> all(logits.begin(), logits.end());
  all.insert(all.end(), mtp.begin(), mtp.end());
  return Sha256({reinterpret_cast<const uint8_t*>(all.data()), all.size() * sizeof(float)});
}

std::span<const int32_t> Tokens(std::span<const int32_t> prompt, int64_t from, int64_t stop) {
  return prompt.subspan(static_cast<size_t>(from), static_cast<size_t>(stop - from));
}

}  // namespace

absl::StatusOr<std::vector<Digest>> PairVerifier::ColdResults(std::span<const int32_t> prompt,
                                                              std::span<const int64_t> cuts) {
  const size_t vocab = static_cast<size_t>(forward_.model().config.vocab);
  SessionState session(forward_.model().config, *forward_.model().layout);
  std::vector<Digest> results;
  while (results.size() < cuts.size()) {
    const int64_t from = session.position();
    const int64_t stop = std::min<int64_t>(from + options_.chunk, cuts.back());
    const int64_t next = cuts[results.size()];
    std::map<int64_t, std::vector<float>> mtp;
    StepItem item;
    item.session = &session;
    item.tokens = Tokens(prompt, from, stop);
    item.want = next <= stop ? WantLogits::kAll : WantLogits::kNone;
    if (next <= stop) item.mtp_from = next - 2;
    item.on_mtp = [&](int64_t position, std::span<const float> logits) {
      mtp[position].assign(logits.begin(), logits.end());
    };
    CAIRN_RETURN_IF_ERROR(forward_.Run({&item, 1}));
    while (results.size() < cuts.size() && cuts[results.size()] <= stop) {
      const int64_t cut = cuts[results.size()];
      const size_t row = static_cast<size_t>(cut - 1 - from);
      results.push_back(
          ResultOf(std::span<const float>(item.logits).subspan(row * vocab, vocab), mtp[cut - 2]));
    }
  }
  return results;
}

absl::Status PairVerifier::CheckPair(std::span<const int32_t> prompt, const Digest& cold) {
  const int64_t cut = static_cast<int64_t>(prompt.size());
  SessionState session(forward_.model().config, *forward_.model().layout);
  const ResumeReport report = cache_.Resume(prompt, session);
  ++figures_.pairs;
  figures_.checksum_failures += report.checksum_failures;
  if (report.prefix_tokens == 0) {
    ++figures_.missed;
    return absl::OkStatus();
  }
  StepItem item;
  std::vector<float> mtp;
  item.on_mtp = [&](int64_t, std::span<const float> logits) {
    mtp.assign(logits.begin(), logits.end());
  };
  while (session.position() < cut) {
    const int64_t from = session.position();
    const int64_t stop = std::min<int64_t>(from + options_.chunk, cut);
    item.session = &session;
    item.tokens = Tokens(prompt, from, stop);
    item.want = stop == cut ? WantLogits::kLast : WantLogits::kNone;
    item.mtp_from = cut - 2;
    const absl::Status computed = forward_.Run({&item, 1});
    if (session.arrival_failed()) break;
    CAIRN_RETURN_IF_ERROR(computed);
  }
  if (!cache_.StillIntact()) {
    ++figures_.taken_back;
    return absl::OkStatus();
  }
  figures_.hit_tokens += report.prefix_tokens;
  figures_.recomputed_tokens += cut - report.prefix_tokens;
  figures_.replayed += report.replay_token_layers > 0 ? 1 : 0;
  figures_.replay_token_layers += report.replay_token_layers;
  figures_.replay_rectangle_token_layers += report.replay_rectangle_token_layers;
  figures_.host_bytes += report.host_bytes;
  figures_.disk_bytes += report.disk_bytes;
  if (report.prefix_tokens < (cut - 1) / kBlockTokens * kBlockTokens) ++figures_.shorter;
  if (ResultOf(item.logits, mtp) == cold) {
    ++figures_.equal;
    return absl::OkStatus();
  }
  ++figures_.differing;
  if (differences_.size() >= options_.differences_max) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(Divergence first,
                         FindDivergence(forward_, cache_, prompt, options_.chunk));
  differences_.push_back({figures_.prompts, cut, report.prefix_tokens, std::move(first)});
  return absl::OkStatus();
}

absl::Status PairVerifier::Put(std::span<const int32_t> prompt) {
  CAIRN_RETURN_IF_ERROR(
      RunSequence(forward_, &cache_, clock_, prompt, {.chunk = options_.chunk, .new_tokens = 1})
          .status());
  // What was dropped shows as a miss.
  cache_.Flush(options_.flush);
  return absl::OkStatus();
}

absl::Status PairVerifier::Add(std::span<const int32_t> prompt) {
  const int64_t tokens = static_cast<int64_t>(prompt.size());
  ++figures_.prompts;
  figures_.prompt_tokens += tokens;
  const std::vector<int64_t> cuts = CutsOf(tokens);
  if (cuts.empty()) {
    ++figures_.too_short;
    return absl::OkStatus();
  }
  figures_.boundaries += (tokens - 1) / kBlockTokens;
  CAIRN_ASSIGN_OR_RETURN(const std::vector<Digest> cold, ColdResults(prompt, cuts));
  CAIRN_RETURN_IF_ERROR(Put(prompt));
  for (size_t i = 0; i < cuts.size(); ++i) {
    CAIRN_RETURN_IF_ERROR(CheckPair(prompt.first(static_cast<size_t>(cuts[i])), cold[i]));
  }
  if (options_.progress) options_.progress(figures_);
  return absl::OkStatus();
}

}  // namespace cairn::engine
