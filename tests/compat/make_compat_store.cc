// make_compat_store: writes the store of today's format that later formats must open or refuse.
// usage: make_compat_store DIRECTORY      (tests/compat/README.md)
#include <cstdio>
#include <filesystem>
#include <string>

#include "store/base/exit_codes.h"
#include "tests/compat/compat_store.h"

namespace cairn::compat {
namespace {

absl::Status Make(const std::string& directory) {
  {
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<OpenedStore> store, OpenStore(directory));
    CAIRN_RETURN_IF_ERROR(Fill(*store));
  }
  // The second start makes tables of the catalog's log, so that there are both.
  CAIRN_RETURN_IF_ERROR(OpenStore(directory).status());
  // Locks, and what RocksDB keeps for people: it names this machine, and nothing reads it.
  const std::filesystem::path root(directory);
  for (const std::filesystem::path& folder : {root, root / "catalog"}) {
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
      const std::string name = file.path().filename().string();
      if (name == "LOCK" || name.starts_with("LOG") || name.starts_with("OPTIONS")) {
        std::filesystem::remove(file.path());
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace cairn::compat

int main(int argc, char** argv) {
  if (argc != 2 || std::filesystem::exists(argv[1])) {
    std::fprintf(stderr, "usage: make_compat_store DIRECTORY (a new one)\n");
    return cairn::kExitUsage;
  }
  if (const absl::Status made = cairn::compat::Make(argv[1]); !made.ok()) {
    std::fprintf(stderr, "make_compat_store: %s\n", made.ToString().c_str());
    return cairn::kExitFailure;
  }
  return cairn::kExitOk;
}
