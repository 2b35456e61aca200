// How soon a daemon serves after a start: from exec to an answered match over its socket, with a
// million catalogued entries and with none.
//
// The store is made for it: a catalog of entries with Flash's part tables, and segment files of the
// true sizes without the payloads (holes), which a match does not read.
#include <filesystem>

#include "cache/client/digest_chain.h"
#include "cache/core/attributes.h"
#include "store/base/clock.h"
#include "store/base/limits.h"
#include "store/device/uring_file_system.h"
#include "store/index/rocks_catalog.h"
#include "store/recovery/recovery.h"
#include "store/recovery/store_files.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/daemon_process.h"
#include "tools/cairn-bench/flash_layout.h"

namespace cairn::bench {
namespace {

using cache::LayoutScope;

constexpr uint32_t kEntries = 1'000'000;
constexpr uint32_t kChainBlocks = 512;
constexpr uint64_t kSegmentBytes = 256ull << 20;
constexpr size_t kBatch = 2000;

absl::StatusOr<std::unique_ptr<DaemonProcess>> Start(const std::string& folder) {
  // Without the scrubber, which would find that there are no payloads.
  return DaemonProcess::Start(
      folder, {"--host-bytes", "4GiB", "--disk-bytes", "2000GiB", "--scrub-rate", "off"});
}

absl::StatusOr<std::unique_ptr<cache::CacheApi>> Connect(const std::string& folder) {
  return ConnectToDaemon(folder, {FlashLayout(), ""});
}

struct Store {
  std::string folder = {};
  std::vector<Digest> chain = {};  // one of those stored; not stored if the store is empty
  uint32_t stored_blocks = 0;
};

// Seconds from exec to an answered match, and that the answer is right.
absl::StatusOr<double> SecondsToServe(const Store& store) {
  const int64_t start = RealClock().NowNanos();
  CAIRN_ASSIGN_OR_RETURN(const auto daemon, Start(store.folder));
  CAIRN_ASSIGN_OR_RETURN(const auto api, Connect(store.folder));
  CAIRN_ASSIGN_OR_RETURN(const cache::MatchResult match, api->Match(store.chain));
  const double seconds = static_cast<double>(RealClock().NowNanos() - start) * 1e-9;
  if (match.rows_blocks == store.stored_blocks) return seconds;
  return absl::DataLossError(
      absl::StrCat("matched ", match.rows_blocks, " of ", store.stored_blocks, " stored blocks"));
}

// Segment files of the true sizes, headers only.
absl::Status MakeSegments(const std::string& data, uint64_t segments, store::StoreUuid uuid) {
  store::UringFileSystem files;
  for (uint64_t id = 1; id <= segments; ++id) {
    CAIRN_ASSIGN_OR_RETURN(const std::unique_ptr<store::File> file,
                           files.Open(absl::StrCat(store::SegmentsDirectory(data), "/",
                                                   store::SegmentSet::FileName(id)),
                                      store::OpenMode::kCreate));
    CAIRN_RETURN_IF_ERROR(file->Truncate(kSegmentBytes));
    store::IoBuffer page(store::kSegmentHeaderBytes);
    store::EncodeSegmentHeader({.segment = id,
                                .tag = store::SegmentTag(uuid, id),
                                .store = uuid,
                                .created_wall_micros = 0},
                               page.bytes());
    store::IoRequest write = store::IoRequest::Write(*file, 0, page.bytes());
    files.Submit({&write, 1});
    CAIRN_RETURN_IF_ERROR(write.status);
  }
  return absl::OkStatus();
}

// Fills the catalog with chains under `root`; the first chain goes to `store`.
absl::Status FillCatalog(Store& store, const Digest& root) {
  const std::string data = store.folder + "/data";
  store::UringFileSystem files;
  CAIRN_ASSIGN_OR_RETURN(const std::optional<store::StoreUuid> uuid,
                         store::ReadFormatFile(data, files));
  if (!uuid.has_value()) return absl::NotFoundError("the daemon made no store");
  const std::unique_ptr<store::Catalog> catalog = store::MakeRocksCatalog();
  CAIRN_RETURN_IF_ERROR(catalog->Open(data));
  SeededRandom random(2);
  std::vector<EntryPart> parts;
  for (const uint32_t bytes : FlashLayout().part_bytes(LayoutScope::kPrefix)) {
    parts.push_back({bytes, random.Next()});
  }
  store::RecordLocation at{.segment = 1, .offset = store::kSegmentHeaderBytes};
  store::CatalogBatch batch;
  Digest parent = root, digest;
  for (uint32_t i = 0; i < kEntries; ++i) {
    const uint32_t index = i % kChainBlocks;
    if (index == 0) parent = root;
    random.Fill(digest.bytes);
    if (i < kChainBlocks) store.chain.push_back(digest);
    EntryMeta meta{
        {digest, EntryKind::kRows}, parts, cache::EncodeAttributes({root, parent, index})};
    at.bytes = store::RecordBytes(meta);
    if (at.offset + at.bytes > kSegmentBytes) {
      ++at.segment;
      at.offset = store::kSegmentHeaderBytes;
    }
    at.sequence = i + 1;
    batch.puts.push_back({std::move(meta), at});
    at.offset += at.bytes;
    parent = digest;
    if (batch.puts.size() < kBatch && i + 1 < kEntries) continue;
    CAIRN_RETURN_IF_ERROR(catalog->Apply(batch, /*sync=*/false));
    batch.puts.clear();
  }
  batch.values = {
      {store::kValueUuid, store::UuidText(*uuid)},
      {store::kValueWatermark, store::EncodeWatermark({.segment = at.segment + 1,
                                                       .end = store::kSegmentHeaderBytes,
                                                       .sequence = uint64_t{kEntries} + 1})}};
  CAIRN_RETURN_IF_ERROR(catalog->Apply(batch, /*sync=*/true));
  store.stored_blocks = kChainBlocks;
  return MakeSegments(data, at.segment, *uuid);
}

absl::StatusOr<Store> MakeStore(const std::string& folder, bool filled) {
  std::filesystem::create_directory(folder);
  Store store{.folder = folder};
  Digest root;
  {
    // Its first start makes the store and the tenant's key, from which the root follows.
    CAIRN_ASSIGN_OR_RETURN(const auto daemon, Start(folder));
    CAIRN_ASSIGN_OR_RETURN(const auto api, Connect(folder));
    root = api->registration().root;
  }
  if (filled) {
    CAIRN_RETURN_IF_ERROR(FillCatalog(store, root));
  } else {
    const std::vector<int32_t> tokens(size_t{kChainBlocks} * kBlockTokens, 7);
    store.chain = cache::DigestChain(root, tokens);
  }
  return store;
}

absl::StatusOr<Prepared> Prepare(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(const Store empty, MakeStore(context.directory + "/empty", false));
  CAIRN_ASSIGN_OR_RETURN(const Store full, MakeStore(context.directory + "/full", true));
  return Prepared{
      {{"cairnd on an empty store", Role::kLimit, [empty] { return SecondsToServe(empty); }},
       {absl::StrCat("cairnd with ", kEntries, " entries, a chain of ", kChainBlocks), Role::kOurs,
        [full] { return SecondsToServe(full); }}},
      {}};
}

}  // namespace

void AddRestartBenches(std::vector<Bench>& benches) {
  benches.push_back({.name = "restart",
                     .what = "from exec to the first answered match over the socket",
                     .unit = "s",
                     .higher_is_better = false,
                     .figure_bound = 3,
                     .prepare = Prepare});
}

}  // namespace cairn::bench
