#include "cache/service/refusal.h"

#include "absl/strings/str_cat.h"
#include "cache/client/protocol.h"
#include "store/base/come_again.h"

namespace cairn::cache {

absl::Duration PatienceOf(const grpc::CallbackServerContext& context) {
  const gpr_timespec deadline = context.raw_deadline();
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  if (gpr_time_cmp(left, gpr_inf_future(GPR_TIMESPAN)) == 0) return absl::InfiniteDuration();
  return absl::Milliseconds(gpr_time_to_millis(left)) / 2;
}

absl::Status Refuse(ServiceState& state, const std::string& what, absl::Duration come_again) {
  ++state.counters.refused_calls;
  return ComeAgainIn(come_again, what + " is busy (or go on without it)");
}

grpc::Status EndOfCall(ServiceState& state, grpc::CallbackServerContext& context,
                       const absl::Status& status) {
  if (absl::IsInvalidArgument(status)) ++state.counters.invalid_calls;
  if (const auto wait = ComeAgainOf(status); wait.has_value()) {
    context.AddTrailingMetadata(kPushbackKey, absl::StrCat(absl::ToInt64Milliseconds(*wait)));
  }
  return ToGrpc(status);
}

}  // namespace cairn::cache
