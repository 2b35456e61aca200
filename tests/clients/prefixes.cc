#include "tests/clients/prefixes.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cache/client/digest_chain.h"
#include "cache/core/derived_entry.h"
#include "store/base/limits.h"

namespace cairn::clients {
namespace {

absl::Status CheckView(const cache::EntryView& view) {
  if (absl::Status intact = view.Verify(); !intact.ok()) {
    return absl::DataLossError(absl::StrCat("WRONG: ", intact.ToString()));
  }
  const std::vector<uint8_t> expected = cache::DerivedPayload(ClientsSpec().layout, view.key);
  if (std::ranges::equal(view.payload, expected)) return absl::OkStatus();
  return absl::DataLossError("WRONG: an entry with good checksums is not what was put");
}

}  // namespace

const cache::NamespaceSpec& ClientsSpec() {
  static const cache::NamespaceSpec spec = [] {
    cache::LayoutDescriptor layout;
    layout.model = "clients";
    layout.numerics = "plain";
    layout.components = {{"csa", cache::LayoutScope::kPrefix, 4, 32, 2048, 8, "x"},
                         {"hca", cache::LayoutScope::kPrefix, 128, 1, 584, 0, "x"},
                         {"window", cache::LayoutScope::kTrailing, 1, 128, 2048, 0, "x"}};
    return cache::NamespaceSpec{layout, ""};
  }();
  return spec;
}

std::vector<Digest> ChainOf(const Digest& root, uint64_t number, size_t blocks) {
  std::vector<int32_t> tokens(blocks * kBlockTokens, 7);
  tokens[0] = static_cast<int32_t>(number);
  return cache::DigestChain(root, tokens);
}

std::vector<cache::ReserveItem> ItemsOf(const cache::CacheApi& cache,
                                        std::span<const Digest> chain) {
  std::vector<cache::ReserveItem> items;
  for (size_t i = 0; i < chain.size(); ++i) {
    items.push_back({{chain[i], EntryKind::kRows},
                     i == 0 ? cache.registration().root : chain[i - 1],
                     static_cast<uint32_t>(i)});
  }
  items.push_back(items.back());
  items.back().key.kind = EntryKind::kCheckpoint;
  return items;
}

absl::StatusOr<PutResult> PutPrefix(cache::CacheApi& cache, std::span<const Digest> chain,
                                    bool durable) {
  const std::vector<cache::ReserveItem> items = ItemsOf(cache, chain);
  CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::ReserveResult> reserved,
                         cache.Reserve(items, absl::ZeroDuration()));
  const cache::LayoutDescriptor& layout = ClientsSpec().layout;
  std::vector<std::unique_ptr<cache::StagingBuffer>> buffers;
  std::vector<cache::CommitItem> commits;
  for (size_t i = 0; i < items.size(); ++i) {
    if (reserved[i].state != cache::ReserveState::kGo) continue;
    const EntryKey& key = items[i].key;
    const std::vector<uint8_t> payload = cache::DerivedPayload(layout, key);
    CAIRN_ASSIGN_OR_RETURN(auto buffer, cache.Stage(payload.size()));
    std::ranges::copy(payload, buffer->bytes.begin());
    commits.push_back(
        {reserved[i].reservation, buffer.get(), cache::PartsOfPayload(layout, key.kind, payload)});
    buffers.push_back(std::move(buffer));
  }
  PutResult result;
  if (commits.empty()) return result;
  CAIRN_ASSIGN_OR_RETURN(const std::vector<absl::Status> statuses, cache.Commit(commits, durable));
  for (const absl::Status& status : statuses) {
    if (status.ok()) {
      ++result.committed;
    } else if (absl::IsResourceExhausted(status) || absl::IsFailedPrecondition(status)) {
      ++result.refused;  // no room beside what is held, or what it builds on went meanwhile
    } else {
      return status;
    }
  }
  return result;
}

absl::Status CheckPrefix(const cache::FetchedPrefix& fetched) {
  for (const cache::EntryView& view : fetched.rows) CAIRN_RETURN_IF_ERROR(CheckView(view));
  return fetched.checkpoint.has_value() ? CheckView(*fetched.checkpoint) : absl::OkStatus();
}

}  // namespace cairn::clients
