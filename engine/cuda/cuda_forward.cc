#include "engine/cuda/cuda_forward.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/cuda/cuda_step.h"
#include "kernels/cuda/hyper_connection.h"
#include "kernels/cuda/norms.h"

namespace cairn::engine {
namespace {

using kernels::cuda::Branch;
using kernels::cuda::HcShape;
using kernels::cuda::OwnedStream;
using kernels::cuda::StepShape;
using kernels::cuda::StepSpan;

HcShape HcOf(const CudaModel& model, int64_t rows) {
  const ModelConfig& c = model.config;
  return {rows, c.dim, static_cast<float>(c.norm_eps), static_cast<float>(c.hc_eps),
          static_cast<int>(c.hc_sinkhorn_iters)};
}

kernels::cuda::HcMerging MergingOf(const CudaWorkspace& w) {
  return {w.f.get(), w.post.get(), w.comb.get()};
}

// w.x: the sub-layer's input from the streams, before its norm. `merge`: what the sub-layer before
// made is merged into them first. w.comb is there behind the branch kMixing.
absl::Status MixStreams(CudaStep& step, const CudaHyperConnection& hc, bool merge) {
  CudaWorkspace& w = step.w;
  HcShape shape = HcOf(step.model, step.rows);
  shape.finish_later = !step.branches.empty();
  if (merge) {
    CAIRN_RETURN_IF_ERROR(kernels::cuda::HcMergeMix(step.stream, MergingOf(w), hc.view(), shape,
                                                    w.streams.get(), w.x.get(), w.post.get(),
                                                    w.comb.get()));
  } else {
    CAIRN_RETURN_IF_ERROR(kernels::cuda::HcMix(step.stream, hc.view(), shape, w.streams.get(),
                                               w.x.get(), w.post.get(), w.comb.get()));
  }
  if (!shape.finish_later) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(const CudaStep beside, step.Fork(CudaBranch::kMixing));
  return kernels::cuda::HcFinish(beside.stream, shape, w.comb.get());
}

// The sub-layer's input: w.x normalised, and its codes in w.x_codes.
absl::Status NormInput(CudaStep& step, const kernels::cuda::DeviceBuffer<uint16_t>& weight) {
  CudaWorkspace& w = step.w;
  return NormQuantise(step, w.x.get(), weight, w.x.get(),
                      w.x_codes.Rows(step.rows, step.model.config.dim));
}

// All blocks over w.streams, in place. Spec sections 2.1 and 2.2.
absl::Status RunCudaBlocks(CudaStep& step) {
  CudaWorkspace& w = step.w;
  int64_t csa = 0, hca = 0;
  for (int64_t i = 0; i < std::ssize(step.model.layers); ++i) {
    const CudaBlock& block = step.model.layers[static_cast<size_t>(i)];
    CudaLayerPlace place{i, 0};
    if (block.ratio == 4) place.of_kind = csa++;
    if (block.ratio == 128) place.of_kind = hca++;
    CAIRN_RETURN_IF_ERROR(MixStreams(step, block.hc_attn, i > 0));
    CAIRN_RETURN_IF_ERROR(NormInput(step, block.attn_norm));
    CAIRN_RETURN_IF_ERROR(CudaAttentionLayer(step, block, place, w.x.get()));
    CAIRN_RETURN_IF_ERROR(MixStreams(step, block.hc_ffn, true));
    CAIRN_RETURN_IF_ERROR(NormInput(step, block.ffn_norm));
    CAIRN_RETURN_IF_ERROR(CudaMoeLayer(step, block.ffn, w.x.get()));
  }
  return kernels::cuda::HcMerge(step.stream, MergingOf(w), step.rows, step.model.config.dim,
                                w.streams.get());
}

// Logits and the most likely token of each span's last row.
absl::Status RunCudaHead(CudaStep& step) {
  const CudaModel& model = step.model;
  const ModelConfig& c = model.config;
  CudaWorkspace& w = step.w;
  const int64_t spans = step.shape.spans;
  CAIRN_RETURN_IF_ERROR(kernels::cuda::TakeLastRows(step.stream, w.spans.get(), spans, c.hc * c.dim,
                                                    w.streams.get(), w.last.get()));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::HcCollapse(
      step.stream, model.hc_head.view(), HcOf(model, spans), w.last.get(), w.head_x.get()));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::RmsNorm(step.stream, w.head_x.get(), model.norm.get(), spans,
                                               c.dim, step.norm_eps(), w.head_x.get()));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::Linear(
      step.stream, model.head.view, kernels::cuda::Bf16Rows{w.head_x.get(), spans, c.dim, 1},
      {w.logits.get(), c.vocab}));
  return kernels::cuda::Argmax(step.stream, w.logits.get(), spans, c.vocab, w.next.get());
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaForward>> CudaForward::Create(const CudaModel& model,
                                                                 CudaSessions& sessions,
                                                                 int64_t rows_max,
                                                                 int64_t spans_max) {
  CAIRN_ASSIGN_OR_RETURN(OwnedStream stream, OwnedStream::Create());
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<CudaWorkspace> workspace,
                         CudaWorkspace::Create(model.config, sessions, rows_max, spans_max));
  std::vector<Branch> branches;
  for (size_t i = 0; i < kCudaBranches; ++i) {
    CAIRN_ASSIGN_OR_RETURN(Branch branch, Branch::Create());
    branches.push_back(std::move(branch));
  }
  return std::unique_ptr<CudaForward>(new CudaForward(model, sessions, std::move(workspace),
                                                      std::move(stream), std::move(branches)));
}

CudaForward::CudaForward(const CudaModel& model, CudaSessions& sessions,
                         std::unique_ptr<CudaWorkspace> workspace, OwnedStream stream,
                         std::vector<Branch> branches)
    : model_(model),
      sessions_(sessions),
      workspace_(std::move(workspace)),
      stream_(std::move(stream)),
      branches_(std::move(branches)),
      token_steps_(static_cast<size_t>(workspace_->spans_max + 1)) {}

absl::Status CudaForward::CheckItem(const CudaStepItem& item) const {
  const CudaSessionOptions& room = sessions_.options();
  if (item.slot < 0 || item.slot >= room.slots) {
    return absl::InvalidArgumentError(
        absl::StrCat("slot ", item.slot, " of a step; there are ", room.slots));
  }
  const int64_t count = std::ssize(item.tokens);
  if (count == 0) {
    return absl::InvalidArgumentError("a step needs at least one token a sequence");
  }
  if (count > room.span_tokens_max) {
    return absl::InvalidArgumentError(absl::StrCat(
        count, " tokens of a sequence in a step; its window has room for ", room.span_tokens_max));
  }
  const int64_t end = sessions_.position(item.slot) + count;
  if (end > room.tokens_max) {
    return absl::OutOfRangeError(absl::StrCat(
        "the sequence would be ", end, " tokens long; its slot has room for ", room.tokens_max));
  }
  for (int64_t i = 0; i < count; ++i) {
    const int32_t token = item.tokens[static_cast<size_t>(i)];
    if (token < 0 || token >= model_.config.vocab) {
      return absl::InvalidArgumentError(absl::StrCat("token ", i, " of the step is ", token,
                                                     "; the vocabulary has ", model_.config.vocab));
    }
  }
  return absl::OkStatus();
}

absl::Status CudaForward::Check(std::span<const CudaStepItem> items) const {
  const int64_t spans = std::ssize(items);
  int64_t rows = 0, longest = 0;
  std::vector<int64_t> slots;
  for (const CudaStepItem& item : items) {
    CAIRN_RETURN_IF_ERROR(CheckItem(item));
    if (std::find(slots.begin(), slots.end(), item.slot) != slots.end()) {
      return absl::InvalidArgumentError(absl::StrCat("slot ", item.slot, " twice in a step"));
    }
    slots.push_back(item.slot);
    rows += std::ssize(item.tokens);
    longest = std::max<int64_t>(longest, std::ssize(item.tokens));
  }
  if (spans == 0 || rows > workspace_->rows_max || spans > workspace_->spans_max) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a step of ", rows, " tokens of ", items.size(), " sequences; there is room for ",
        workspace_->rows_max, " of ", workspace_->spans_max));
  }
  // Groups are laid out as if all spans were as long as the longest (StepShape); scored in one turn
  // unless all are one token.
  const int64_t group = kernels::cuda::kIndexGroupTokensMax;
  const int64_t padded = spans * ((longest + group - 1) / group * group);
  const bool alike = spans == 1 || longest == 1;
  if (!alike && (spans * longest > workspace_->rows_max || padded > workspace_->score_rows)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a step of ", spans, " sequences, the longest of ", longest,
                     " tokens, takes room for ", spans, " times that; there is room for ",
                     std::min(workspace_->rows_max, workspace_->score_rows),
                     ": give the long one a step of its own"));
  }
  return absl::OkStatus();
}

StepShape CudaForward::Shape(int64_t spans, int64_t span_tokens_max) const {
  return {.spans = spans,
          .span_tokens_max = span_tokens_max,
          .ring = sessions_.ring(),
          .csa_rows = sessions_.csa_rows(),
          .hca_rows = sessions_.hca_rows(),
          .index_topk = model_.config.index_topk};
}

absl::Status CudaForward::Launch(const StepShape& shape, int64_t rows,
                                 std::span<const Branch> branches) {
  CudaWorkspace& w = *workspace_;
  CudaStep step{model_, sessions_, w, stream(), shape, rows, branches};
  CAIRN_RETURN_IF_ERROR(PlanStep(step));
  CAIRN_RETURN_IF_ERROR(kernels::cuda::EmbedTokens(stream(), model_.embed.get(), model_.config.dim,
                                                   model_.config.hc, w.tokens.get(), rows,
                                                   w.streams.get()));
  CAIRN_RETURN_IF_ERROR(RunCudaBlocks(step));
  return RunCudaHead(step);
}

absl::StatusOr<kernels::cuda::Graph> CudaForward::Capture(int64_t spans, bool next) {
  CudaWorkspace& w = *workspace_;
  return kernels::cuda::Graph::Record(stream(), [&] {
    if (next) {
      CAIRN_RETURN_IF_ERROR(
          kernels::cuda::NextStep(stream(), w.spans.get(), spans, w.next.get(), w.tokens.get()));
    }
    return Launch(Shape(spans, 1), spans, branches_);
  });
}

absl::Status CudaForward::Step(std::span<const CudaStepItem> items) {
  CAIRN_RETURN_IF_ERROR(Check(items));
  int64_t longest = 0;
  for (const CudaStepItem& item : items) {
    longest = std::max<int64_t>(longest, std::ssize(item.tokens));
  }
  kernels::cuda::Graph* const graph = longest == 1 ? &token_steps_[items.size()] : nullptr;
  if (graph != nullptr && !*graph) {
    CAIRN_ASSIGN_OR_RETURN(*graph, Capture(std::ssize(items), /*next=*/false));
  }
  std::vector<int32_t> tokens;
  std::vector<StepSpan> spans;
  slots_.clear();
  for (const CudaStepItem& item : items) {
    const int64_t position = sessions_.position(item.slot);
    const int64_t count = std::ssize(item.tokens);
    spans.push_back({static_cast<int32_t>(tokens.size()), static_cast<int32_t>(count),
                     static_cast<int32_t>(item.slot), static_cast<int32_t>(position)});
    tokens.insert(tokens.end(), item.tokens.begin(), item.tokens.end());
    sessions_.set_position(item.slot, position + count);
    slots_.push_back(item.slot);
  }
  rows_ = std::ssize(tokens);
  CAIRN_RETURN_IF_ERROR(workspace_->tokens.WriteOn(stream(), tokens));
  CAIRN_RETURN_IF_ERROR(workspace_->spans.WriteOn(stream(), spans));
  if (graph != nullptr) return graph->Launch(stream());
  return Launch(Shape(std::ssize(spans), longest), rows_, {});
}

absl::Status CudaForward::DecodeNext() {
  const int64_t spans = std::ssize(slots_);
  for (const int64_t slot : slots_) {
    if (sessions_.position(slot) + 1 > sessions_.options().tokens_max) {
      return absl::OutOfRangeError(absl::StrCat("the sequence of slot ", slot, " is full"));
    }
  }
  if (!decode_ || decode_spans_ != spans) {
    CAIRN_ASSIGN_OR_RETURN(decode_, Capture(spans, /*next=*/true));
    decode_spans_ = spans;
  }
  for (const int64_t slot : slots_) sessions_.set_position(slot, sessions_.position(slot) + 1);
  rows_ = spans;
  return decode_.Launch(stream());
}

absl::Status CudaForward::CopyLogits(std::span<float> out) const {
  return workspace_->logits.ReadOn(stream(), out);
}

absl::StatusOr<std::vector<float>> CudaForward::Logits() {
  CAIRN_ASSIGN_OR_RETURN(std::vector<float> all, workspace_->logits.Read());
  all.resize(slots_.size() * static_cast<size_t>(model_.config.vocab));
  return all;
}

absl::StatusOr<std::vector<int32_t>> CudaForward::NextTokens() {
  CAIRN_ASSIGN_OR_RETURN(std::vector<int32_t> all, workspace_->next.Read());
  all.resize(slots_.size());
  return all;
}

absl::StatusOr<std::vector<uint16_t>> CudaForward::Streams() {
  CAIRN_ASSIGN_OR_RETURN(std::vector<uint16_t> all, workspace_->streams.Read());
  all.resize(static_cast<size_t>(rows_ * model_.config.hc * model_.config.dim));
  return all;
}

}  // namespace cairn::engine
