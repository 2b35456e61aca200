// What a daemon answers, however it lies: the checks of cache/client/answer_check.h, and what is
// made of an answer that passed them: views into the arena, or a prefix that arrives.
//
// which u8, asked blocks u8, then the message; for a stream's head the message is length u16 and
// bytes, and what follows are the payloads.
#include "cache/client/answer_check.h"

#include "cache/client/arriving_prefix.h"
#include "cache/client/protocol.h"
#include "store/base/checksum.h"
#include "tests/fuzz/fuzz_input.h"

namespace cairn::cache {
namespace {

using fuzz::FuzzInput;

constexpr uint64_t kArenaBytes = 64 << 10, kPoolBytes = 32 << 10;

LayoutDescriptor Layout() {
  LayoutDescriptor layout;
  layout.model = "m";
  layout.numerics = "plain";
  layout.components = {{"a", LayoutScope::kPrefix, 4, 32, 2, 0, "x"},
                       {"b", LayoutScope::kPrefix, 128, 1, 7, 0, "x"},
                       {"w", LayoutScope::kTrailing, 1, 128, 1, 0, "x"}};
  return layout;
}

const EntryShapes& Shapes() {
  static const EntryShapes shapes(Layout());
  return shapes;
}

// UNAVAILABLE, or FAILED_PRECONDITION for another version; nothing else makes an engine go on
// without the cache.
bool Believed(const absl::Status& status) {
  if (status.ok()) return true;
  fuzz::CheckRefusal(status);
  FUZZ_CHECK(absl::IsUnavailable(status) || absl::IsFailedPrecondition(status));
  return false;
}

void CheckRegistered(const v1::Registration& answer) {
  const absl::StatusOr<CheckedRegistration> checked = CheckRegistration(answer);
  if (!Believed(checked.status())) return;
  FUZZ_CHECK(checked->token.size() == kTokenBytes);
  FUZZ_CHECK(checked->attach_socket.find('/') == std::string::npos);
  FUZZ_CHECK(checked->attach_socket.size() <= kNameBytesMax);
}

// Every entry that was believed can be read where it is said to lie.
void ReadMapped(const v1::MappedPrefix& answer) {
  const std::vector<uint8_t> arena(kArenaBytes, 0x5a);
  const int rows = answer.offsets_size() - (answer.checkpoint() ? 1 : 0);
  for (int i = 0; i < answer.offsets_size(); ++i) {
    const auto& parts = i < rows ? Shapes().rows : Shapes().checkpoint;
    const uint64_t bytes = i < rows ? Shapes().rows_bytes : Shapes().checkpoint_bytes;
    FUZZ_CHECK(answer.offsets(i) % kIoAlignment == 0 && answer.offsets(i) <= kArenaBytes);
    const std::span<const uint8_t> entry = std::span(arena).subspan(answer.offsets(i));
    const EntryView view = {.key = {},
                            .payload = entry.first(bytes),
                            .part_bytes = parts,
                            .part_table = entry.data() + PartTableOffset(bytes),
                            .table_xxh3 = answer.table_xxh3(i)};
    FUZZ_CHECK(absl::IsDataLoss(view.Verify()));  // nobody put that
  }
  FUZZ_CHECK(answer.gpu_offsets_size() <= answer.offsets_size());
  for (int i = 0; i < answer.gpu_offsets_size(); ++i) {
    const auto& parts = i < rows ? Shapes().rows : Shapes().checkpoint;
    const uint64_t bytes = i < rows ? Shapes().rows_bytes : Shapes().checkpoint_bytes;
    const uint64_t at = answer.gpu_offsets(i);
    FUZZ_CHECK(at % kIoAlignment == 0 && at <= kPoolBytes);
    FUZZ_CHECK(PartTableOffset(bytes) + parts.size() * sizeof(uint64_t) <= kPoolBytes - at);
  }
}

void CheckMatched(const v1::MatchResponse& answer, size_t asked) {
  const absl::StatusOr<MatchResult> match = CheckMatch(answer, asked);
  if (!Believed(match.status())) return;
  FUZZ_CHECK(match->rows_host_blocks <= match->rows_blocks && match->rows_blocks <= asked);
  FUZZ_CHECK(match->checkpoints.size() <= kCheckpointHitsMax);
  uint32_t above = match->rows_blocks + 1;
  for (const CheckpointHit& hit : match->checkpoints) {
    FUZZ_CHECK(hit.blocks > 0 && hit.blocks < above);
    FUZZ_CHECK(hit.tier == Tier::kHost || hit.tier == Tier::kDisk);
    above = hit.blocks;
  }
  if (!answer.has_leased()) return;
  if (!Believed(CheckLeased(answer.leased(), *match, {kArenaBytes, kPoolBytes}, Shapes()))) return;
  FUZZ_CHECK(static_cast<size_t>(answer.leased().offsets_size()) ==
             match->checkpoints.front().blocks + 1u);
  ReadMapped(answer.leased());
}

void CheckMappedPrefix(const v1::MappedPrefix& answer, const FetchAsked& asked) {
  if (!Believed(CheckMapped(answer, asked, {kArenaBytes, kPoolBytes}, Shapes()))) return;
  FUZZ_CHECK(static_cast<size_t>(answer.offsets_size()) <= asked.chain_blocks + 1);
  ReadMapped(answer);
}

void ReceivePrefix(CheckedFetch checked, const FetchRequest& request, size_t stripes,
                   FuzzInput& payloads) {
  uint64_t announced = checked.checkpoint.has_value() ? checked.checkpoint->bytes : 0;
  for (const CheckedExtent& extent : checked.rows) announced += extent.bytes;
  static ReceivePool pool(1 << 20);
  // Groups of one of the rows' parts, of the checkpoint, and of the rest.
  const std::vector<GroupEnd> ends = {{64, 0}, {64, 128}};
  ArrivingPrefix prefix(request, std::move(checked), pool, ends, stripes);
  for (size_t next = 0; !prefix.Done() && !payloads.empty(); ++next) {
    ArrivingPrefix::Stripe& stripe = prefix.stripe(next % stripes);
    if (stripe.Done()) continue;
    const auto piece = payloads.TakeBytes(std::min<uint64_t>(stripe.Missing(), 100));
    const absl::StatusOr<std::span<uint8_t>> room = stripe.Room();
    FUZZ_CHECK_OK(room.status());
    FUZZ_CHECK(room->size() >= piece.size());
    std::copy(piece.begin(), piece.end(), room->begin());
    stripe.Took(piece.size());
  }
  FUZZ_CHECK(prefix.payload_bytes() <= announced);
  if (prefix.Done()) FUZZ_CHECK(prefix.Await(SIZE_MAX).ok() == prefix.verified);
  // "Verified" must be no less than every view's own check.
  bool verified = true;
  for (const EntryView& view : prefix.rows) verified &= view.Verify().ok();
  if (prefix.checkpoint.has_value()) verified &= prefix.checkpoint->Verify().ok();
  if (prefix.Done()) FUZZ_CHECK(prefix.verified == verified);
  FUZZ_CHECK(prefix.rows.size() <= request.chain.size());
}

void CheckHead(const v1::FetchResponse& answer, const FetchAsked& asked, FuzzInput& payloads) {
  absl::StatusOr<CheckedFetch> checked = CheckFetch(answer, asked, Shapes());
  if (!Believed(checked.status())) return;
  FUZZ_CHECK(checked->rows.size() <= asked.chain_blocks);
  FUZZ_CHECK(asked.checkpoint || !checked->checkpoint.has_value());
  FUZZ_CHECK(asked.groups || !checked->grouped);
  for (const CheckedExtent& extent : checked->rows) {
    FUZZ_CHECK(extent.bytes == Shapes().rows_bytes);
    FUZZ_CHECK(extent.parts.size() == Shapes().rows.size());
  }
  const std::vector<Digest> chain(asked.chain_blocks);
  if (chain.empty()) return;  // no request is
  ReceivePrefix(*std::move(checked), {.chain = chain, .checkpoint = asked.checkpoint},
                asked.chain_blocks % 3 + 1, payloads);
}

void CheckReserved(const v1::ReserveResponse& answer, size_t asked) {
  const absl::StatusOr<std::vector<ReserveResult>> results = CheckReserve(answer, asked);
  if (!Believed(results.status())) return;
  FUZZ_CHECK(results->size() == asked);
  for (const ReserveResult& result : *results) {
    FUZZ_CHECK(result.state >= ReserveState::kExists && result.state <= ReserveState::kWait);
  }
}

void CheckCommitted(const v1::CommitResponse& answer, size_t asked) {
  const absl::StatusOr<std::vector<absl::Status>> statuses = CheckCommit(answer, asked);
  if (Believed(statuses.status())) FUZZ_CHECK(statuses->size() == asked);
}

void CheckCounts(const v1::StatsResponse& answer) {
  const absl::StatusOr<std::vector<NamedCount>> counts = CheckStats(answer);
  if (Believed(counts.status())) FUZZ_CHECK(counts->size() <= kStatsCountsMax);
}

template <typename Message, typename Check>
void Run(std::span<const uint8_t> bytes, Check check) {
  Message message;
  if (message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) check(message);
}

}  // namespace
}  // namespace cairn::cache

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  namespace v1 = cairn::v1;
  cairn::fuzz::FuzzInput input(data, size);
  const int which = input.Take<uint8_t>() % 14;
  const FetchAsked asked = {
      .chain_blocks = input.Take<uint8_t>(), .checkpoint = which >= 7, .groups = which >= 7};
  const size_t blocks = asked.chain_blocks;
  if (which % 7 == 3) {
    const auto head = input.TakeBytes(input.Take<uint16_t>());
    Run<v1::FetchResponse>(head, [&](const auto& answer) { CheckHead(answer, asked, input); });
    return 0;
  }
  const std::span<const uint8_t> bytes = input.TakeRest();
  switch (which % 7) {
    case 0:
      Run<v1::Registration>(bytes, CheckRegistered);
      break;
    case 1:
      Run<v1::MatchResponse>(bytes, [&](const auto& a) { CheckMatched(a, blocks); });
      break;
    case 2:
      Run<v1::MappedPrefix>(bytes, [&](const auto& a) { CheckMappedPrefix(a, asked); });
      break;
    case 4:
      Run<v1::ReserveResponse>(bytes, [&](const auto& a) { CheckReserved(a, blocks); });
      break;
    case 5:
      Run<v1::CommitResponse>(bytes, [&](const auto& a) { CheckCommitted(a, blocks); });
      break;
    default:
      Run<v1::StatsResponse>(bytes, CheckCounts);
      break;
  }
  return 0;
}
