#include "tests/sim/sim_catalog.h"

#include "tests/sim/fibers.h"

namespace cairn::sim {
namespace {

constexpr uint64_t kErrorIn = 30;

}  // namespace

absl::Status SimCatalog::Power() const {
  if (!files_.off()) return absl::OkStatus();
  return absl::UnavailableError("catalog: the power is off");
}

absl::Status SimCatalog::Open(const std::string& directory) {
  CAIRN_RETURN_IF_ERROR(Power());
  return base_.Open(directory);
}

absl::StatusOr<std::string> SimCatalog::MoveAside(const std::string& directory) {
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Power());
  model_.CatalogLost();
  return base_.MoveAside(directory);
}

absl::Status SimCatalog::Apply(const store::CatalogBatch& batch, bool sync) {
  Fibers::instance()->Yield();
  const Undisturbed device;
  CAIRN_RETURN_IF_ERROR(Power());
  if (errors_ && !files_.quiet() && random_.Next() % kErrorIn == 0) {
    for (const EntryKey& key : batch.erases) model_.EraseFailed(key);
    // After a failure nobody knows whether the batch will be found one day.
    if (random_.Next() % 2 == 0) {
      disk_->ApplyUnseen(batch);
      for (const store::CatalogEntry& entry : batch.puts) model_.MayComeBack(entry);
      for (const EntryKey& key : batch.erases) model_.MayBeGone(key);
    }
    return random_.Next() % 2 == 0 ? absl::UnavailableError("catalog: write: Input/output error")
                                   : absl::ResourceExhaustedError("catalog: write: no space");
  }
  CAIRN_RETURN_IF_ERROR(base_.Apply(batch, sync));
  Tell(batch);
  return absl::OkStatus();
}

void SimCatalog::Tell(const store::CatalogBatch& batch) {
  for (const store::CatalogEntry& entry : batch.puts) model_.Catalogued(entry);
  for (const EntryKey& key : batch.erases) model_.Uncatalogued(key);
}

absl::StatusOr<std::optional<store::CatalogEntry>> SimCatalog::Get(const EntryKey& key) const {
  CAIRN_RETURN_IF_ERROR(Power());
  return base_.Get(key);
}

std::vector<absl::StatusOr<std::optional<store::CatalogEntry>>> SimCatalog::MultiGet(
    std::span<const EntryKey> keys) const {
  if (const absl::Status power = Power(); !power.ok()) {
    return {keys.size(), absl::StatusOr<std::optional<store::CatalogEntry>>(power)};
  }
  return base_.MultiGet(keys);
}

absl::StatusOr<std::optional<std::string>> SimCatalog::GetValue(const std::string& name) const {
  CAIRN_RETURN_IF_ERROR(Power());
  return base_.GetValue(name);
}

}  // namespace cairn::sim
