// Passes over memory: copy-out of a mapped prefix, commit of staged blocks, digests of tokens. The
// limits are written here, with none of the library's code in them.
#define XXH_PREFETCH_DIST 2048  // as ours: the library's own is slower here
#define XXH_INLINE_ALL
#include <immintrin.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "cache/client/digest_chain.h"
#include "store/base/clock.h"
#include "store/base/limits.h"
#include "store/device/shared_memory.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/flash_layout.h"
#include "tools/cairn-bench/host_fixture.h"
#include "tools/cairn-bench/unix_rivals.h"

namespace cairn::bench {
namespace {

using cache::LayoutScope;

constexpr size_t kCopyBlocks = 512;
constexpr size_t kCommitBlocks = 128;
constexpr size_t kCommitRepeats = 6;
constexpr size_t kDigestBlocks = 8192;
constexpr size_t kRivalValueBytes = 1 << 20;
constexpr size_t kRivalValues = 64;

// GB/s of `bytes` by one call.
template <typename Pass>
double Rate(uint64_t bytes, Pass pass) {
  const int64_t start = RealClock().NowNanos();
  pass();
  return static_cast<double>(bytes) / static_cast<double>(RealClock().NowNanos() - start);
}

// ---- copy-out ----

// Streaming copies of one piece. Which is fastest depends on the machine.
template <size_t kLines, size_t kPrefetchBytes, _mm_hint kHint = _MM_HINT_NTA>
void StreamPiece(uint8_t* to, const uint8_t* from, size_t bytes) {
  constexpr size_t kStep = 64 * kLines;
  // To the destination's first whole vector.
  const size_t head = std::min(bytes, (32 - reinterpret_cast<uintptr_t>(to) % 32) % 32);
  std::memcpy(to, from, head);
  size_t at = head;
  for (; at + kStep <= bytes; at += kStep) {
    __m256i vectors[2 * kLines];
    for (size_t i = 0; i < 2 * kLines; ++i) {
      if constexpr (kPrefetchBytes > 0) {
        _mm_prefetch(reinterpret_cast<const char*>(from + at + 32 * i + kPrefetchBytes), kHint);
      }
      vectors[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at + 32 * i));
    }
    for (size_t i = 0; i < 2 * kLines; ++i) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + at + 32 * i), vectors[i]);
    }
  }
  std::memcpy(to + at, from + at, bytes - at);
}

using PieceCopy = void (*)(uint8_t*, const uint8_t*, size_t);

// By one or two threads, half of the rows each.
double StreamPrefix(const cache::FetchedPrefix& prefix, std::span<uint8_t> destination,
                    PieceCopy copy, int threads) {
  const auto run = [copy](std::span<const cache::EntryView> entries, uint8_t* to) {
    for (const cache::EntryView& entry : entries) {
      copy(to, entry.payload.data(), entry.payload.size());
      to += entry.payload.size();
    }
    _mm_sfence();
  };
  const std::span<const cache::EntryView> rows = prefix.rows;
  const size_t own = rows.size() / static_cast<size_t>(threads);
  const size_t row_bytes = rows[0].payload.size();
  return Rate(prefix.payload_bytes(), [&] {
    std::thread other([&] { run(rows.subspan(own), destination.data() + own * row_bytes); });
    run(rows.first(own), destination.data());
    run({&*prefix.checkpoint, 1}, destination.data() + rows.size() * row_bytes);
    other.join();
  });
}

struct CopyOutRig {
  int threads = 1;
  std::unique_ptr<HostFixture> host;
  std::unique_ptr<cache::CacheApi> cache;
  std::shared_ptr<cache::FetchedPrefix> prefix;
  std::vector<uint8_t> destination;  // touched once, here
  std::unique_ptr<UnixRival> redis, memcached;

  absl::StatusOr<double> Limit() {
    double best = 0;
    for (const PieceCopy copy : {&StreamPiece<1, 0>, &StreamPiece<4, 0>, &StreamPiece<4, 1024>,
                                 &StreamPiece<1, 2048, _MM_HINT_T0>}) {
      best = std::max(best, StreamPrefix(*prefix, destination, copy, threads));
    }
    return best;
  }
  absl::StatusOr<double> Ours() {
    double best = 0;
    for (int i = 0; i < 4; ++i) {  // as often as the limit tries
      absl::Status status;
      best = std::max(best, Rate(prefix->payload_bytes(),
                                 [&] { status = prefix->CopyOut(destination, threads); }));
      CAIRN_RETURN_IF_ERROR(status);
    }
    return best;
  }
  static absl::Status Fill(UnixRival& rival) {
    const std::vector<uint8_t> value(kRivalValueBytes, 0x5a);
    for (size_t i = 0; i < kRivalValues; ++i) {
      CAIRN_RETURN_IF_ERROR(rival.Set(absl::StrCat("value", i), value));
    }
    return absl::OkStatus();
  }
  absl::StatusOr<double> Rival(UnixRival& rival) {
    double best = 0;
    for (int repeat = 0; repeat < 3; ++repeat) {
      absl::Status status;
      best =
          std::max(best, Rate(kRivalValues * kRivalValueBytes, [&] {
                     for (size_t i = 0; i < kRivalValues && status.ok(); ++i) {
                       status = rival.Get(
                           absl::StrCat("value", i),
                           std::span(destination).subspan(i * kRivalValueBytes, kRivalValueBytes));
                     }
                   }));
      CAIRN_RETURN_IF_ERROR(status);
    }
    return best;
  }
};

void AddRival(Prepared& prepared, const std::shared_ptr<CopyOutRig>& rig, const std::string& name,
              absl::StatusOr<std::unique_ptr<UnixRival>> started,
              std::unique_ptr<UnixRival> CopyOutRig::*member) {
  absl::Status status = started.status();
  if (status.ok()) status = CopyOutRig::Fill(**started);
  if (!status.ok()) {
    prepared.left_out.push_back(std::string(status.message()));
    return;
  }
  ((*rig).*member) = *std::move(started);
  prepared.contenders.push_back(
      {name, Role::kRival, [rig, member] { return rig->Rival(*((*rig).*member)); }});
}

absl::StatusOr<Prepared> PrepareCopyOut(const BenchContext& context, int threads) {
  auto rig = std::make_shared<CopyOutRig>();
  rig->threads = threads;
  CAIRN_ASSIGN_OR_RETURN(rig->host, HostFixture::Make(FlashLayout(), kCopyBlocks));
  CAIRN_RETURN_IF_ERROR(rig->host->Serve(context.directory));
  CAIRN_ASSIGN_OR_RETURN(rig->cache, rig->host->Connect());
  const std::vector<Digest> chain = ChainOf(*rig->cache, kCopyBlocks, 1);
  CAIRN_RETURN_IF_ERROR(PutPrefix(*rig->cache, rig->host->layout(), chain));
  CAIRN_ASSIGN_OR_RETURN(const cache::MatchResult match,
                         rig->cache->Match(chain, {.lease_host = true}));
  if (match.leased == nullptr) return absl::InternalError("nothing was leased");
  rig->prefix = match.leased;
  rig->destination.resize(rig->prefix->payload_bytes());
  Prepared prepared;
  prepared.contenders = {
      {"streaming copy, best of four", Role::kLimit, [rig] { return rig->Limit(); }},
      {"CopyOut, every part verified", Role::kOurs, [rig] { return rig->Ours(); }}};
  AddRival(prepared, rig, "redis-server GET 1 MiB, unix socket",
           UnixRival::StartRedis(context.directory), &CopyOutRig::redis);
  AddRival(prepared, rig, "memcached get 1 MiB, unix socket",
           UnixRival::StartMemcached(context.directory), &CopyOutRig::memcached);
  return prepared;
}

// ---- commit ----

struct CommitRig {
  std::unique_ptr<HostFixture> host;
  std::unique_ptr<cache::CacheApi> cache;
  StagedEntries staged;
  std::optional<store::SharedMemory> room;  // as large as what ours copies into, and as warm
  std::vector<uint32_t> sizes;
  uint64_t bytes = 0;  // of all staged entries
  int32_t salt = 0;

  using PartPass = uint64_t (*)(uint8_t*, const uint8_t*, size_t);
  static uint64_t CopyThenHash(uint8_t* to, const uint8_t* from, size_t size) {
    std::memcpy(to, from, size);
    return XXH3_64bits(to, size);
  }
  // Hashed while it is in the first-level cache, then written past the caches.
  template <size_t kPiece>
  static uint64_t HashThenStream(uint8_t* to, const uint8_t* from, size_t size) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (size_t at = 0; at < size; at += kPiece) {
      const size_t piece = std::min(kPiece, size - at);
      XXH3_64bits_update(&state, from + at, piece);
      StreamPiece<1, 0>(to + at, from + at, piece);
    }
    return XXH3_64bits_digest(&state);
  }

  absl::StatusOr<double> Limit() {
    double best = 0;
    for (const PartPass pass : {&CopyThenHash, &HashThenStream<1024>, &HashThenStream<4096>}) {
      for (size_t repeat = 0; repeat < 2; ++repeat) {
        bool equal = true;
        const double rate = Rate(bytes, [&] {
          uint64_t at = 0;
          for (size_t i = 0; i < staged.buffers.size(); ++i) {
            const uint8_t* from = staged.buffers[i]->bytes.data();
            uint8_t* to = room->writable().data() + at;
            for (const EntryPart& part : staged.parts[i]) {
              equal &= pass(to, from, part.bytes) == part.xxh3;
              to += part.bytes;
              from += part.bytes;
            }
            at += staged.buffers[i]->bytes.size();
          }
          _mm_sfence();
        });
        if (!equal) return absl::InternalError("a checksum of the limit's differs");
        best = std::max(best, rate);
      }
    }
    return best;
  }
  absl::StatusOr<double> Ours() {
    double best = 0;
    for (size_t repeat = 0; repeat < kCommitRepeats; ++repeat) {
      uint64_t kept = 0;
      CAIRN_RETURN_IF_ERROR(host->core().Evict({}, &kept).status());
      const std::vector<Digest> chain = ChainOf(*cache, kCommitBlocks, ++salt);
      CAIRN_ASSIGN_OR_RETURN(const std::vector<cache::CommitItem> items,
                             ReserveRows(*cache, chain, 0, staged));
      absl::Status status;
      best = std::max(best, Rate(bytes, [&] { status = CommitAll(*cache, items); }));
      CAIRN_RETURN_IF_ERROR(status);
    }
    return best;
  }
};

absl::StatusOr<Prepared> PrepareCommit(const BenchContext&) {
  auto rig = std::make_shared<CommitRig>();
  CAIRN_ASSIGN_OR_RETURN(rig->host, HostFixture::Make(FlashLayout(), kCommitBlocks));
  CAIRN_ASSIGN_OR_RETURN(rig->cache, rig->host->OpenLocal());
  rig->sizes = rig->host->layout().part_bytes(LayoutScope::kPrefix);
  CAIRN_ASSIGN_OR_RETURN(rig->staged, StageEntries(*rig->cache, rig->sizes, kCommitBlocks));
  rig->bytes = kCommitBlocks * rig->host->layout().entry_bytes(LayoutScope::kPrefix);
  uint64_t room = 0;
  for (const auto& buffer : rig->staged.buffers) room += buffer->bytes.size();
  CAIRN_ASSIGN_OR_RETURN(
      rig->room, store::SharedMemory::Create("cairn-bench", {.bytes = room, .prefault = true}));
  return Prepared{
      {{"copy and XXH3, best of three ways", Role::kLimit, [rig] { return rig->Limit(); }},
       {"Commit", Role::kOurs, [rig] { return rig->Ours(); }}},
      {}};
}

// ---- digest ----

struct DigestRig {
  std::vector<int32_t> tokens = std::vector<int32_t>(kDigestBlocks * kBlockTokens, 7);
  // Tag, parent, index, count, tokens: digest_chain.h.
  static constexpr size_t kMessageBytes = 13 + 32 + 8 + 4 + 4 * kBlockTokens;
  static constexpr uint64_t kBytes = kDigestBlocks * kMessageBytes;

  // Chained too: each message holds the digest before it.
  absl::StatusOr<double> Limit() {
    EVP_MD* const type = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    EVP_MD_CTX* const context = EVP_MD_CTX_new();
    uint8_t message[kMessageBytes] = {};
    bool ok = EVP_DigestInit_ex2(context, type, nullptr) == 1;
    const double rate = Rate(kBytes, [&] {
      for (size_t i = 0; i < kDigestBlocks; ++i) {
        ok = ok && EVP_DigestInit_ex2(context, nullptr, nullptr) == 1 &&
             EVP_DigestUpdate(context, message, sizeof(message)) == 1 &&
             EVP_DigestFinal_ex(context, message + 13, nullptr) == 1;
      }
    });
    EVP_MD_CTX_free(context);
    EVP_MD_free(type);
    if (!ok) return absl::InternalError("OpenSSL refuses SHA-256");
    return rate;
  }
  absl::StatusOr<double> Ours() {
    size_t blocks = 0;
    const double rate = Rate(kBytes, [&] { blocks = cache::DigestChain(Digest(), tokens).size(); });
    if (blocks != kDigestBlocks) return absl::InternalError("another number of digests");
    return rate;
  }
};

absl::StatusOr<Prepared> PrepareDigest(const BenchContext&) {
  auto rig = std::make_shared<DigestRig>();
  const auto best_of = [rig](absl::StatusOr<double> (DigestRig::*pass)()) {
    return [rig, pass]() -> absl::StatusOr<double> {
      double best = 0;
      for (int i = 0; i < 20; ++i) {
        CAIRN_ASSIGN_OR_RETURN(const double rate, ((*rig).*pass)());
        best = std::max(best, rate);
      }
      return best;
    };
  };
  return Prepared{{{"OpenSSL EVP, one context", Role::kLimit, best_of(&DigestRig::Limit)},
                   {"DigestChain", Role::kOurs, best_of(&DigestRig::Ours)}},
                  {}};
}

}  // namespace

void AddMemoryBenches(std::vector<Bench>& benches) {
  for (const int threads : {1, 2}) {
    benches.push_back(
        {.name = threads == 1 ? "copy-out" : "copy-out-2",
         .what = absl::StrCat("512 mapped Flash blocks and a checkpoint (234 MB), copied and "
                              "verified, threads: ",
                              threads),
         .unit = "GB/s",
         .ratio_bound = 0.9,
         .prepare = [threads](const BenchContext& c) { return PrepareCopyOut(c, threads); }});
  }
  benches.push_back({.name = "commit",
                     .what = "128 staged Flash blocks (58 MB) into host memory",
                     .unit = "GB/s",
                     .ratio_bound = 0.8,
                     .prepare = PrepareCommit});
  benches.push_back({.name = "digest",
                     .what = "digests of 8,192 blocks, messages of 569 B",
                     .unit = "GB/s",
                     .ratio_bound = 0.9,
                     .prepare = PrepareDigest});
}

}  // namespace cairn::bench
