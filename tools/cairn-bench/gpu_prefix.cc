#include "tools/cairn-bench/gpu_prefix.h"

#include <algorithm>
#include <cstring>

#include "store/base/checksum.h"
#include "store/base/random.h"

namespace cairn::bench {
namespace {

constexpr uint64_t kPlaceAlignment = 256;
constexpr uint32_t kCsaLayers = 21;  // flash_layout.h: each has rows and indexer rows, then 20 HCA

EntryMeta MakeEntry(uint32_t number, const std::vector<uint32_t>& parts, EntryKind kind,
                    std::span<uint8_t> payload) {
  SeededRandom random(number + 1);
  for (size_t at = 0; at + 8 <= payload.size(); at += 8) {
    const uint64_t word = random.Next();
    std::memcpy(payload.data() + at, &word, 8);
  }
  EntryMeta meta;
  uint8_t name[sizeof(number)];
  std::memcpy(name, &number, sizeof(number));
  meta.key = {.digest = Sha256(name), .kind = kind};
  uint64_t at = 0;
  for (const uint32_t bytes : parts) {
    meta.parts.push_back({.bytes = bytes, .xxh3 = Checksum(payload.subspan(at, bytes))});
    at += bytes;
  }
  return meta;
}

}  // namespace

absl::StatusOr<std::shared_ptr<GpuPrefix>> GpuPrefix::Make() {
  auto prefix = std::shared_ptr<GpuPrefix>(new GpuPrefix());
  CAIRN_RETURN_IF_ERROR(prefix->Open());
  CAIRN_RETURN_IF_ERROR(prefix->PutAll());
  return prefix;
}

absl::Status GpuPrefix::Open() {
  CAIRN_ASSIGN_OR_RETURN(gpu_, store::OpenGpu());
  const uint64_t bytes = kBlocks * store::HostRoomBytes(shapes_.rows_bytes, shapes_.rows.size()) +
                         store::HostRoomBytes(shapes_.checkpoint_bytes, shapes_.checkpoint.size());
  CAIRN_ASSIGN_OR_RETURN(host_, store::HostTier::Create({.capacity_bytes = bytes}));
  CAIRN_ASSIGN_OR_RETURN(pinned_, gpu_->Pin(host_->arena(), store::PinnedUse::kReadWrite));
  CAIRN_ASSIGN_OR_RETURN(tier_, store::GpuTier::Create(*gpu_, bytes));
  CAIRN_ASSIGN_OR_RETURN(mover_, store::GpuMover::Create(*gpu_, *host_, *tier_, {}));
  uint64_t session_bytes = 0;
  row_places_ = Places(shapes_.rows, kBlocks, session_bytes);
  window_places_ = Places(shapes_.checkpoint, 1, session_bytes);
  CAIRN_ASSIGN_OR_RETURN(session_, gpu_->Allocate(session_bytes, store::GpuSharing::kPrivate));
  seen_ = store::IoBuffer(session_bytes);
  CAIRN_ASSIGN_OR_RETURN(seen_pinned_, gpu_->Pin(seen_.bytes(), store::PinnedUse::kReadWrite));
  CAIRN_ASSIGN_OR_RETURN(stream_, gpu_->NewStream());
  CAIRN_ASSIGN_OR_RETURN(restore_, store::GpuRestore::Create(*gpu_, kBlocks + 1));
  return absl::OkStatus();
}

absl::Status GpuPrefix::PutAll() {
  for (uint32_t i = 0; i <= kBlocks; ++i) {
    const bool rows = i < kBlocks;
    const std::vector<uint32_t>& parts = rows ? shapes_.rows : shapes_.checkpoint;
    const uint64_t bytes = rows ? shapes_.rows_bytes : shapes_.checkpoint_bytes;
    CAIRN_ASSIGN_OR_RETURN(store::HostRoom room, host_->Reserve(bytes, parts.size()));
    metas_.push_back(MakeEntry(i, parts, rows ? EntryKind::kRows : EntryKind::kCheckpoint,
                               room.bytes().first(bytes)));
    CAIRN_RETURN_IF_ERROR(host_->Publish(metas_.back(), std::move(room)));
    pins_.push_back(*host_->Find(metas_.back().key));
  }
  return absl::OkStatus();
}

std::vector<uint64_t> GpuPrefix::Places(const std::vector<uint32_t>& parts, uint64_t count,
                                        uint64_t& end) const {
  std::vector<uint64_t> places;
  for (const uint32_t bytes : parts) {
    places.push_back(end);
    end += (bytes * count + kPlaceAlignment - 1) / kPlaceAlignment * kPlaceAlignment;
  }
  return places;
}

absl::Status GpuPrefix::Promote() {
  absl::Status failed;
  const auto done = [&](const EntryKey&, const absl::Status& status) { failed.Update(status); };
  for (const EntryMeta& meta : metas_) {
    CAIRN_RETURN_IF_ERROR(mover_->Promote(*host_->Find(meta.key), done));
  }
  do {
    mover_->Step();
  } while (mover_->Wait());
  return failed;
}

std::vector<const uint8_t*> GpuPrefix::HostSources() const {
  std::vector<const uint8_t*> sources;
  for (const store::HostPin& pin : pins_) sources.push_back(pin.payload().data());
  return sources;
}

std::vector<const uint8_t*> GpuPrefix::GpuSources() const {
  std::vector<const uint8_t*> sources;
  for (const EntryMeta& meta : metas_) {
    sources.push_back(tier_->Find(meta.key).extent().payload);
  }
  return sources;
}

std::vector<store::GpuGatherStep> GpuPrefix::Steps(uint32_t begin, uint32_t end,
                                                   bool with_checkpoint) const {
  std::vector<uint32_t> from(1, 0);
  for (const uint32_t bytes : shapes_.rows) from.push_back(from.back() + bytes);
  std::vector<store::GpuGatherStep> steps;
  const auto add_rows = [&](store::GpuGatherStep& step, size_t part) {
    const uint32_t bytes = shapes_.rows[part];
    step.parts.push_back({.first = 0,
                          .count = end - begin,
                          .from = from[part],
                          .bytes = bytes,
                          .to = session_->data() + row_places_[part] + uint64_t{begin} * bytes,
                          .to_stride = bytes});
  };
  uint32_t window_from = 0;
  for (uint32_t layer = 0; layer < shapes_.checkpoint.size(); ++layer) {
    store::GpuGatherStep step;
    // Layers 0, 1 and the MTP block have windows only; CSA and HCA follow in turn.
    if (layer >= 2 && layer < 2 + 2 * kCsaLayers - 1) {
      const uint32_t pair = (layer - 2) / 2;
      if (layer % 2 == 0) {
        add_rows(step, 2 * pair);
        add_rows(step, 2 * pair + 1);
      } else {
        add_rows(step, 2 * kCsaLayers + pair);
      }
    }
    const uint32_t window_bytes = shapes_.checkpoint[layer];
    if (with_checkpoint) {
      step.parts.push_back({.first = end - begin,
                            .count = 1,
                            .from = window_from,
                            .bytes = window_bytes,
                            .to = session_->data() + window_places_[layer]});
    }
    window_from += window_bytes;
    if (!step.parts.empty()) steps.push_back(std::move(step));
  }
  return steps;
}

absl::Status GpuPrefix::Poison() {
  CAIRN_RETURN_IF_ERROR(stream_->Zero(session_->data(), session_->bytes()));
  CAIRN_ASSIGN_OR_RETURN(const store::GpuMark mark, stream_->Mark());
  return stream_->Wait(mark);
}

absl::Status GpuPrefix::Compare() {
  CAIRN_RETURN_IF_ERROR(stream_->Copy(session_->data(), seen_.bytes().data(), session_->bytes()));
  CAIRN_ASSIGN_OR_RETURN(const store::GpuMark mark, stream_->Mark());
  CAIRN_RETURN_IF_ERROR(stream_->Wait(mark));
  const auto equal = [&](uint64_t place, std::span<const uint8_t> wanted) {
    return std::memcmp(seen_.bytes().data() + place, wanted.data(), wanted.size()) == 0;
  };
  for (uint32_t i = 0; i <= kBlocks; ++i) {
    const std::vector<uint32_t>& parts = i < kBlocks ? shapes_.rows : shapes_.checkpoint;
    uint64_t at = 0;
    for (size_t part = 0; part < parts.size(); ++part) {
      const uint64_t place =
          i < kBlocks ? row_places_[part] + uint64_t{i} * parts[part] : window_places_[part];
      if (!equal(place, Payload(i).subspan(at, parts[part]))) {
        return absl::InternalError(
            absl::StrCat("part ", part, " of entry ", i, " was not restored as it was put"));
      }
      at += parts[part];
    }
  }
  return absl::OkStatus();
}

EntryMeta GpuPrefix::Meta(uint32_t i) const { return metas_[i]; }
std::span<const uint8_t> GpuPrefix::Payload(uint32_t i) const { return pins_[i].payload(); }

}  // namespace cairn::bench
