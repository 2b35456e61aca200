#include "tests/crash/oracle.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cache/client/digest_chain.h"
#include "cache/core/derived_entry.h"
#include "store/base/limits.h"

namespace cairn::crash {

const cache::NamespaceSpec& CrashSpec() {
  static const cache::NamespaceSpec spec = [] {
    cache::LayoutDescriptor layout;
    layout.model = "crash";
    layout.numerics = "plain";
    // Rows of 11,364 B and checkpoints of 20,480 B: some thirty records to a segment.
    layout.components = {{"csa", cache::LayoutScope::kPrefix, 4, 32, 352, 8, "x"},
                         {"hca", cache::LayoutScope::kPrefix, 128, 1, 100, 0, "x"},
                         {"window", cache::LayoutScope::kTrailing, 1, 128, 160, 0, "x"}};
    return cache::NamespaceSpec{layout, ""};
  }();
  return spec;
}

Prefix MakePrefix(const Digest& root, uint64_t number, size_t blocks) {
  std::vector<int32_t> tokens(blocks * kBlockTokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>((number * 1'000'003 + i) % 100'000);
  }
  return {number, cache::DigestChain(root, tokens)};
}

Oracle::Oracle(const Oracle& other) {
  const MutexLock lock(&mutex_), other_lock(&other.mutex_);
  beliefs_ = other.beliefs_;
  prefixes_ = other.prefixes_;
}

void Oracle::Maybe(const EntryKey& key) {
  const MutexLock lock(&mutex_);
  Belief& belief = beliefs_[key];
  if (belief != Belief::kKept) belief = Belief::kMaybe;
}

void Oracle::Certain(const EntryKey& key) {
  const MutexLock lock(&mutex_);
  Belief& belief = beliefs_[key];
  if (belief != Belief::kKept) belief = Belief::kCertain;
}

void Oracle::Keep(const EntryKey& key) {
  const MutexLock lock(&mutex_);
  beliefs_[key] = Belief::kKept;
}

void Oracle::Begin(const Prefix& prefix) {
  const MutexLock lock(&mutex_);
  Prefix& known = prefixes_[prefix.number];
  if (known.chain.size() < prefix.chain.size()) known = prefix;
}

bool Oracle::Knows(const EntryKey& key) const {
  const MutexLock lock(&mutex_);
  return beliefs_.contains(key);
}

Oracle::Missing Oracle::EndPinsAndCompare(const std::set<EntryKey>& there) {
  const MutexLock lock(&mutex_);
  Missing missing;
  for (auto& [key, belief] : beliefs_) {
    if (belief == Belief::kMaybe) continue;
    ++missing.certain;
    const bool kept = belief == Belief::kKept;
    belief = Belief::kCertain;
    if (there.contains(key)) continue;
    (kept ? missing.kept : missing.evictable).push_back(key);
    belief = Belief::kMaybe;
  }
  return missing;
}

std::vector<Prefix> Oracle::Prefixes() const {
  const MutexLock lock(&mutex_);
  std::vector<Prefix> prefixes;
  for (const auto& [number, prefix] : prefixes_) prefixes.push_back(prefix);
  return prefixes;
}

absl::Status CheckFetched(const cache::FetchedPrefix& fetched, std::span<const Digest> chain,
                          uint64_t& bytes) {
  if (fetched.rows.size() > chain.size()) {
    return absl::DataLossError("WRONG: more rows than were asked for");
  }
  const auto check = [&](const cache::EntryView& entry, const EntryKey& key) -> absl::Status {
    const std::vector<uint8_t> put = cache::DerivedPayload(CrashSpec().layout, key);
    const std::string name =
        absl::StrCat(key.kind == EntryKind::kRows ? "rows " : "checkpoint ", key.digest.ToHex());
    if (entry.key != key ||
        !std::equal(put.begin(), put.end(), entry.payload.begin(), entry.payload.end())) {
      return absl::DataLossError("WRONG: not the bytes that were put: " + name);
    }
    // The checksums that a consumer would go by.
    if (const absl::Status verified = entry.Verify(); !verified.ok()) {
      return absl::DataLossError(absl::StrCat("WRONG: the right bytes under wrong checksums: ",
                                              name, ": ", std::string(verified.message())));
    }
    bytes += put.size();
    return absl::OkStatus();
  };
  for (size_t i = 0; i < fetched.rows.size(); ++i) {
    CAIRN_RETURN_IF_ERROR(check(fetched.rows[i], {chain[i], EntryKind::kRows}));
  }
  if (!fetched.checkpoint.has_value()) return absl::OkStatus();
  if (fetched.rows.size() != chain.size()) {
    return absl::DataLossError("WRONG: a checkpoint without all rows before it");
  }
  return check(*fetched.checkpoint, {chain.back(), EntryKind::kCheckpoint});
}

}  // namespace cairn::crash
