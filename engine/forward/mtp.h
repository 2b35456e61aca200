// mtp.h: the multi-token-prediction block. Spec section 2.9.
//
// Row i combines the main model's residual streams at position i with the embedding of token i + 1,
// at RoPE position i. So the row of the last position waits for the token that follows.
#ifndef CAIRN_ENGINE_FORWARD_MTP_H_
#define CAIRN_ENGINE_FORWARD_MTP_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/forward/model.h"
#include "engine/forward/workspace.h"
#include "engine/state/session_state.h"
#include "kernels/cpu/thread_pool.h"

namespace cairn::engine {

struct MtpRows {
  SessionState* session = nullptr;
  int64_t position = 0;                // of the first row
  std::vector<const float*> previous;  // streams [hc, d] at position + i
  std::span<const int32_t> tokens;     // token at position + i + 1
  int64_t wanted = 0;                  // of the last rows, the logits
  std::vector<float> logits;           // out: [wanted, vocab]

  int64_t count() const { return static_cast<int64_t>(previous.size()); }
  int64_t end() const { return position + count(); }
};

// Appends the rows to their sessions' MTP windows; sessions are distinct. Where no logits are
// wanted at all, only the windows are kept up (no attention, no experts). Fails as MoeLayer.
absl::Status RunMtpBlock(const Model& model, kernels::ThreadPool& pool, Workspace& workspace,
                         std::span<MtpRows> all);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_MTP_H_
