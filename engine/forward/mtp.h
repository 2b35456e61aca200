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
};

// Appends the rows to the session's MTP window. Returns the logits of the rows at positions >=
// logits_from, [n, vocab]; without any, only the window is kept up (no attention, no experts).
std::vector<float> RunMtpBlock(const Model& model, kernels::ThreadPool& pool, Workspace& workspace,
                               const MtpRows& rows, int64_t logits_from);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_FORWARD_MTP_H_
