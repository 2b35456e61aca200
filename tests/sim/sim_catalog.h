// sim_catalog.h: the catalog of the simulation: in memory, failing where the disk does, and telling
// the model of every change.
//
// Threads: one, in fibers. Errors: catalog.h; UNAVAILABLE while the power is off.
#ifndef CAIRN_TESTS_SIM_SIM_CATALOG_H_
#define CAIRN_TESTS_SIM_SIM_CATALOG_H_

#include <memory>
#include <string>
#include <vector>

#include "store/index/memory_catalog.h"
#include "tests/sim/model.h"
#include "tests/sim/sim_files.h"

namespace cairn::sim {

class SimCatalog final : public store::Catalog {
 public:
  SimCatalog(std::shared_ptr<store::MemoryCatalogDisk> disk, SimFiles& files, Model& model,
             bool errors, Random& random)
      : disk_(disk),
        base_(std::move(disk)),
        files_(files),
        model_(model),
        errors_(errors),
        random_(random) {}

  absl::Status Open(const std::string& directory) override;
  absl::Status OpenReadOnly(const std::string& directory) override {
    return base_.OpenReadOnly(directory);
  }
  absl::StatusOr<std::string> MoveAside(const std::string& directory) override;
  absl::Status Apply(const store::CatalogBatch& batch, bool sync) override;
  absl::StatusOr<std::optional<store::CatalogEntry>> Get(const EntryKey& key) const override;
  std::vector<absl::StatusOr<std::optional<store::CatalogEntry>>> MultiGet(
      std::span<const EntryKey> keys) const override;
  std::unique_ptr<store::CatalogSnapshot> Snapshot() const override { return base_.Snapshot(); }
  absl::StatusOr<std::optional<std::string>> GetValue(const std::string& name) const override;

 private:
  void Tell(const store::CatalogBatch& batch);
  absl::Status Power() const;

  const std::shared_ptr<store::MemoryCatalogDisk> disk_;
  store::MemoryCatalog base_;
  SimFiles& files_;
  Model& model_;
  const bool errors_;
  Random& random_;
};

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_SIM_CATALOG_H_
