#include "cache/client/staging_pool.h"

#include <algorithm>
#include <map>
#include <vector>

#include "store/base/limits.h"
#include "store/device/shared_memory.h"

namespace cairn::cache {
namespace {

struct Piece {
  store::SharedMemory memory;
  uint32_t id = 0;
  std::map<uint64_t, uint64_t> free;  // offset -> length, coalesced
};

}  // namespace

struct StagingPool::Shared {
  std::mutex mutex;
  std::vector<std::unique_ptr<Piece>> pieces;
  uint64_t bytes = 0;

  // First fit. REQUIRES: mutex held.
  bool Cut(uint64_t want, Piece** piece, uint64_t* offset) {
    for (const std::unique_ptr<Piece>& p : pieces) {
      for (auto it = p->free.begin(); it != p->free.end(); ++it) {
        if (it->second < want) continue;
        *piece = p.get();
        *offset = it->first;
        const uint64_t rest = it->second - want;
        p->free.erase(it);
        if (rest > 0) p->free.emplace(*offset + want, rest);
        return true;
      }
    }
    return false;
  }

  void Return(Piece& piece, uint64_t offset, uint64_t length) {
    std::lock_guard<std::mutex> lock(mutex);
    auto it = piece.free.emplace(offset, length).first;
    if (const auto after = std::next(it);
        after != piece.free.end() && it->first + it->second == after->first) {
      it->second += after->second;
      piece.free.erase(after);
    }
    if (it != piece.free.begin()) {
      const auto before = std::prev(it);
      if (before->first + before->second == it->first) {
        before->second += it->second;
        piece.free.erase(it);
      }
    }
  }
};

namespace {

class CutStaging final : public PooledStaging {
 public:
  CutStaging(std::shared_ptr<StagingPool::Shared> shared, Piece& from, uint64_t at, uint64_t length)
      : shared_(std::move(shared)), from_(from) {
    piece = from.id;
    offset = at;
    bytes = from.memory.writable().subspan(at, length);
  }
  ~CutStaging() override { shared_->Return(from_, offset, bytes.size()); }

 private:
  std::shared_ptr<StagingPool::Shared> shared_;
  Piece& from_;  // lives in shared_, whose pieces are never dropped
};

}  // namespace

StagingPool::StagingPool(const Options& options, Give give)
    : options_(options), give_(std::move(give)), shared_(std::make_shared<Shared>()) {}

StagingPool::~StagingPool() = default;

absl::StatusOr<std::unique_ptr<PooledStaging>> StagingPool::Take(uint64_t bytes) {
  if (bytes == 0 || bytes > kEntryBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging of ", bytes, " bytes, must have 1 to ", kEntryBytesMax));
  }
  const uint64_t want = RoundUpToIo(bytes);
  Piece* piece = nullptr;
  uint64_t offset = 0;
  const auto cut = [&] {
    std::lock_guard<std::mutex> lock(shared_->mutex);
    return shared_->Cut(want, &piece, &offset);
  };
  if (!cut()) {
    std::lock_guard<std::mutex> growing(growing_);
    if (!cut()) {
      const uint64_t room = options_.bytes_max - shared_->bytes;
      const uint64_t size = std::min(std::max(want, options_.piece_bytes), room);
      if (size < want || shared_->pieces.size() >= options_.pieces_max) {
        return absl::ResourceExhaustedError(
            absl::StrCat("all ", shared_->bytes, " bytes of staging memory (at most ",
                         options_.bytes_max, ") are in use: drop committed buffers and retry"));
      }
      auto made = std::make_unique<Piece>();
      CAIRN_ASSIGN_OR_RETURN(made->memory,
                             store::SharedMemory::Create(
                                 "cairn-staging", {.bytes = RoundUpToIo(size), .prefault = true}));
      CAIRN_ASSIGN_OR_RETURN(made->id, give_(made->memory.descriptor(), made->memory.size()));
      std::lock_guard<std::mutex> lock(shared_->mutex);
      made->free.emplace(0, made->memory.size());
      shared_->bytes += made->memory.size();
      shared_->pieces.push_back(std::move(made));
      if (!shared_->Cut(want, &piece, &offset))
        return absl::InternalError("staging piece too small");
    }
  }
  return std::make_unique<CutStaging>(shared_, *piece, offset, want);
}

}  // namespace cairn::cache
