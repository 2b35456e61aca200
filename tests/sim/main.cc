// simulation: the whole daemon but for its gRPC shell, its clients and its machine in one thread,
// decided by a seed. Left out: the gRPC layer, which has threads and timers of its own that no seed
// can order, and which holds no state but what the core hangs on a session.
#include <spdlog/spdlog.h>

#include "cache/core/reservation_table.h"
#include "store/segment/record_format.h"
#include "tests/faults/campaign.h"
#include "tests/sim/world.h"

namespace {

cairn::sim::Canary canary = cairn::sim::Canary::kNone;

}  // namespace

// The linker leads the daemon's calls of these two functions here (tests/CMakeLists.txt, --wrap),
// so that a bug can be put into it without a line of its code.
extern "C" {

absl::Status RealVerifyParts(const cairn::EntryMeta&, std::span<const uint8_t>) __asm__(
    "__real__ZN5cairn5store11VerifyPartsERKNS_9EntryMetaESt4spanIKhLm18446744073709551615EE");
absl::Status WrapVerifyParts(const cairn::EntryMeta&, std::span<const uint8_t>) __asm__(
    "__wrap__ZN5cairn5store11VerifyPartsERKNS_9EntryMetaESt4spanIKhLm18446744073709551615EE");

absl::Status WrapVerifyParts(const cairn::EntryMeta& meta, std::span<const uint8_t> payload) {
  if (canary == cairn::sim::Canary::kUnverified) return absl::OkStatus();
  return RealVerifyParts(meta, payload);
}

uint64_t RealMakerOf(const cairn::cache::ReservationTable*, const cairn::EntryKey&) __asm__(
    "__real__ZNK5cairn5cache16ReservationTable7MakerOfERKNS_8EntryKeyE");
uint64_t WrapMakerOf(const cairn::cache::ReservationTable*, const cairn::EntryKey&) __asm__(
    "__wrap__ZNK5cairn5cache16ReservationTable7MakerOfERKNS_8EntryKeyE");

uint64_t WrapMakerOf(const cairn::cache::ReservationTable* table, const cairn::EntryKey& key) {
  if (canary == cairn::sim::Canary::kTwoMakers) return 0;
  return RealMakerOf(table, key);
}

}  // extern "C"

int main(int argc, char** argv) {
  using cairn::sim::Canary;
  spdlog::set_level(spdlog::level::off);
  cairn::faults::Campaign campaign("simulation", 500);
  const std::map<std::string, Canary> canaries = {{"lost-sync", Canary::kLostSync},
                                                  {"unverified", Canary::kUnverified},
                                                  {"two-makers", Canary::kTwoMakers}};
  campaign.app()
      .add_option("--canary", canary,
                  "a bug to put in; with --expect-failure, finding it is success")
      ->transform(CLI::CheckedTransformer(canaries));
  return campaign.Run(argc, argv, [&](uint64_t seed, cairn::faults::Counts& counts) {
    cairn::sim::World(seed, canary, campaign.verbose(), counts).Run();
  });
}
