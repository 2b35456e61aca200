#include "cache/service/unary_call.h"

#include <utility>

#include "cache/service/refusal.h"

namespace cairn::cache {

void UnaryCall::Run(const Body& body) {
  if (context_->IsCancelled()) {
    Finish(grpc::Status::CANCELLED);
    return;
  }
  Undo undo;
  const absl::Status status = body(&undo);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    undo_ = std::move(undo);
  }
  End(status);
}

UnaryCall* UnaryCall::RunHere(const Body& body) {
  Run(body);
  return this;
}

std::optional<absl::Duration> UnaryCall::TryStart(WorkerPool& pool, Body body) {
  return pool.TryRun([this, body = std::move(body)] { Run(body); }, PatienceOf(*context_));
}

UnaryCall* UnaryCall::StartOrRefuse(WorkerPool& pool, Body body) {
  if (const auto busy_for = TryStart(pool, std::move(body)); busy_for.has_value()) {
    End(Refuse(state_, "the daemon", *busy_for));
  }
  return this;
}

void UnaryCall::End(const absl::Status& status) { Finish(EndOfCall(state_, *context_, status)); }

void UnaryCall::OnDone() {
  const bool lost = context_->IsCancelled();
  Undo undo;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    undo = std::move(undo_);
  }
  if (lost && undo) {
    ++state_.counters.undone_calls;
    state_.quick.Run(std::move(undo));
  }
  delete this;
}

}  // namespace cairn::cache
