#include "engine/cairn_engine/divergence.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

using Bytes = std::span<const uint8_t>;

std::optional<size_t> FirstDifferentByte(Bytes a, Bytes b) {
  const auto [at, unused] = std::mismatch(a.begin(), a.end(), b.begin());
  if (at == a.end()) return std::nullopt;
  return static_cast<size_t>(at - a.begin());
}

std::vector<uint8_t> Checkpoint(const SessionState& session) {
  std::vector<uint8_t> bytes(static_cast<size_t>(session.layout().checkpoint_bytes()));
  session.SaveCheckpoint(bytes);
  return bytes;
}

// `offset`, `bytes`: of the component in every rows entry.
std::optional<Divergence> RowsDifference(const SessionState& cold, const SessionState& warm,
                                         const std::string& name, uint64_t offset, uint64_t bytes) {
  for (int64_t block = 0; block < cold.rows().count(); ++block) {
    const auto at = FirstDifferentByte({cold.rows().Read(block) + offset, bytes},
                                       {warm.rows().Read(block) + offset, bytes});
    if (!at.has_value()) continue;
    return Divergence{name, block * kBlockTokens, absl::StrCat("byte ", *at, " of ", bytes)};
  }
  return std::nullopt;
}

bool SamePartial(const CompressorState& a, const CompressorState& b) {
  return a.partial.kv == b.partial.kv && a.partial.score == b.partial.score;
}

// One token; the streams [hc, dim] after each main layer.
absl::StatusOr<std::vector<std::vector<float>>> StreamsOfStep(Forward& forward,
                                                              SessionState& session,
                                                              const int32_t& token) {
  const ModelConfig& config = forward.model().config;
  std::vector<std::vector<float>> streams;
  forward.set_layer_probe([&](int64_t, int64_t rows, const float* values) {
    streams.emplace_back(values, values + rows * config.hc * config.dim);
  });
  StepItem item;
  item.session = &session;
  item.tokens = {&token, 1};
  const absl::Status status = forward.Run({&item, 1});
  forward.set_layer_probe(nullptr);
  if (!status.ok()) return status;
  return streams;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

std::optional<Divergence> FirstStateDifference(const SessionState& cold, const SessionState& warm,
                                               const Model& model) {
  const std::vector<uint8_t> a = Checkpoint(cold);
  const std::vector<uint8_t> b = Checkpoint(warm);
  uint64_t rows_at = 0, state_at = 0;
  for (const cache::LayoutComponent& component :
       model.layout->Descriptor(model.weights_identity).components) {
    const uint64_t bytes = component.bytes();
    if (component.scope == cache::LayoutScope::kPrefix) {
      auto found = RowsDifference(cold, warm, component.name, rows_at, bytes);
      if (found.has_value()) return found;
      rows_at += bytes;
      continue;
    }
    const auto at =
        FirstDifferentByte(Bytes(a).subspan(state_at, bytes), Bytes(b).subspan(state_at, bytes));
    if (at.has_value()) {
      return Divergence{component.name, cold.position(), absl::StrCat("byte ", *at, " of ", bytes)};
    }
    state_at += bytes;
  }
  for (size_t i = 0; i < model.layout->layers().size(); ++i) {
    const LayerState& x = cold.layer(static_cast<int64_t>(i));
    const LayerState& y = warm.layer(static_cast<int64_t>(i));
    if (SamePartial(x.main, y.main) && SamePartial(x.indexer, y.indexer)) continue;
    return Divergence{absl::StrCat("layer.", i, ".partial"), cold.position(), "the open group"};
  }
  return std::nullopt;
}

absl::StatusOr<std::optional<Divergence>> FirstStreamDifference(Forward& forward,
                                                                std::span<const int32_t> tokens,
                                                                SessionState& cold,
                                                                SessionState& warm) {
  for (const int32_t& token : tokens) {
    const int64_t position = cold.position();
    CAIRN_ASSIGN_OR_RETURN(const auto expected, StreamsOfStep(forward, cold, token));
    CAIRN_ASSIGN_OR_RETURN(const auto got, StreamsOfStep(forward, warm, token));
    for (size_t layer = 0; layer < expected.size(); ++layer) {
      if (SameBits(expected[layer], got[layer])) continue;
      return Divergence{absl::StrCat("layer.", layer, ".streams"), position,
                        "from equal restored state"};
    }
  }
  return std::nullopt;
}

absl::StatusOr<Divergence> FindDivergence(Forward& forward, PrefixCache& cache,
                                          std::span<const int32_t> prompt, int64_t chunk) {
  const Model& model = forward.model();
  SessionState warm(model.config, *model.layout);
  const int64_t prefix = cache.Resume(prompt, warm).prefix_tokens;
  if (prefix == 0) return Divergence{"none", 0, "the second try was a miss"};
  SessionState cold(model.config, *model.layout);
  for (SessionState* session : {&cold, &warm}) {  // the second, if it is to be replayed
    while (session->position() < prefix) {
      const int64_t from = session->position();
      StepItem item;
      item.session = session;
      item.tokens = prompt.subspan(static_cast<size_t>(from),
                                   static_cast<size_t>(std::min(chunk, prefix - from)));
      CAIRN_RETURN_IF_ERROR(forward.Run({&item, 1}));
    }
  }
  CAIRN_RETURN_IF_ERROR(warm.AwaitAll());
  if (auto found = FirstStateDifference(cold, warm, model); found.has_value()) return *found;
  CAIRN_ASSIGN_OR_RETURN(
      auto found,
      FirstStreamDifference(forward, prompt.subspan(static_cast<size_t>(prefix)), cold, warm));
  if (found.has_value()) return *found;
  return Divergence{"chunks", prefix, "a cold run whose steps end there gives the resumed result"};
}

}  // namespace cairn::engine
