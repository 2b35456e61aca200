#include "cache/service/refusal.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace cairn::cache {

absl::Duration PatienceOf(const grpc::CallbackServerContext& context) {
  const gpr_timespec deadline = context.raw_deadline();
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  if (gpr_time_cmp(left, gpr_inf_future(GPR_TIMESPAN)) == 0) return absl::InfiniteDuration();
  return absl::Milliseconds(gpr_time_to_millis(left)) / 2;
}

absl::Status Refuse(ServiceState& state, grpc::CallbackServerContext& context, const char* what,
                    absl::Duration come_again) {
  ++state.counters.refused_calls;
  const int64_t millis = absl::ToInt64Milliseconds(absl::Ceil(come_again, absl::Milliseconds(1)));
  context.AddTrailingMetadata(kPushbackKey, std::to_string(millis));
  return absl::ResourceExhaustedError(
      absl::StrCat(what, " is busy: come again in ", millis, " ms, or go on without it"));
}

}  // namespace cairn::cache
