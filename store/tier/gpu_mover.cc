#include "store/tier/gpu_mover.h"

#include <utility>

#include "store/segment/record_format.h"

namespace cairn::store {
namespace {

uint64_t BytesWithTable(const EntryMeta& meta) {
  return PartTableOffset(meta.payload_bytes()) + meta.parts.size() * sizeof(uint64_t);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GpuMover>> GpuMover::Create(Gpu& gpu, HostTier& host, GpuTier& tier,
                                                           const Options& options) {
  CAIRN_ASSIGN_OR_RETURN(std::unique_ptr<GpuStream> stream, gpu.NewStream());
  auto mover = std::unique_ptr<GpuMover>(new GpuMover(host, tier, std::move(stream), options));
  for (Batch& batch : mover->batches_) {
    CAIRN_ASSIGN_OR_RETURN(batch.check, GpuPartCheck::Create(gpu, kBatchEntriesMax));
  }
  return mover;
}

// The stream waits for its work, then pins and rooms go.
GpuMover::~GpuMover() { stream_.reset(); }

absl::Status GpuMover::Promote(HostPin pin, Done done) {
  auto move = std::make_unique<Move>();
  move->meta = pin.meta();
  move->key = move->meta.key;
  move->bytes = move->meta.payload_bytes();
  move->up = std::move(pin);
  move->done = std::move(done);
  return Enqueue(std::move(move));
}

absl::Status GpuMover::Demote(GpuPin pin, Done done) {
  auto move = std::make_unique<Move>();
  move->meta = pin.meta();
  move->key = move->meta.key;
  move->bytes = move->meta.payload_bytes();
  move->down = std::move(pin);
  move->done = std::move(done);
  return Enqueue(std::move(move));
}

absl::Status GpuMover::Enqueue(MovePtr move) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (waiting_.size() >= options_.waiting_entries_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("GPU mover: ", waiting_.size(), " entries are waiting, as many as may"));
  }
  waiting_.push_back(std::move(move));
  return absl::OkStatus();
}

void GpuMover::Cancel(const EntryKey& key) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto* moves : {&waiting_, &underway_}) {
    for (const MovePtr& move : *moves) {
      if (move->key == key) move->cancelled = true;
    }
  }
  if (beginning_ != nullptr && beginning_->key == key) beginning_->cancelled = true;
}

void GpuMover::Step() {
  Arrive();
  BeginAll();
}

bool GpuMover::Wait() {
  GpuMark mark = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (underway_.empty() && waiting_.empty()) return false;
    if (!underway_.empty()) mark = underway_.front()->mark;
  }
  // A lost device shows in the next Step. With nothing under way, room is what is waited for.
  static_cast<void>(mark != 0 ? stream_->Wait(mark) : tier_.Settle());
  return true;
}

void GpuMover::Arrive() {
  const absl::StatusOr<GpuMark> reached = stream_->Reached();
  for (;;) {
    MovePtr move;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (underway_.empty()) return;
      if (reached.ok() && underway_.front()->mark > *reached) return;
      move = std::move(underway_.front());
      underway_.pop_front();
      stats_.underway_bytes -= move->bytes;
    }
    --move->batch->left;
    if (!reached.ok()) {
      Strand(std::move(move), reached.status());
      continue;
    }
    const absl::Status status = Publish(*move);
    End(std::move(move), status);
  }
}

absl::Status GpuMover::Publish(Move& move) {
  if (move.cancelled) return absl::AbortedError("cancelled");
  if (move.up) {
    CAIRN_RETURN_IF_ERROR(move.batch->check->Verdict(move.checked_as));
    return tier_.Publish(std::move(move.meta), std::move(move.gpu_room));
  }
  CAIRN_RETURN_IF_ERROR(VerifyParts(move.meta, move.host_room.bytes()));
  return host_.Publish(std::move(move.meta), std::move(move.host_room));
}

void GpuMover::BeginAll() {
  for (Batch& batch : batches_) {
    if (batch.left == 0 && !BeginBatch(batch)) return;
  }
}

bool GpuMover::BeginBatch(Batch& batch) {
  std::vector<Move*> begun;  // the last of underway_
  uint64_t bytes = 0;
  while (MovePtr move = NextToBegin(begun.size(), bytes)) {
    const absl::Status status = Begin(*move);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      beginning_ = nullptr;
      if (status.ok()) {
        bytes += move->bytes;
        stats_.underway_bytes += move->bytes;
        begun.push_back(move.get());
        underway_.push_back(std::move(move));
        continue;
      }
      if (absl::IsResourceExhausted(status) && move->up && tier_.stats().unswept_bytes > 0) {
        waiting_.push_front(std::move(move));  // room is on its way
        break;
      }
    }
    End(std::move(move), status);
  }
  if (begun.empty()) return false;
  const absl::StatusOr<GpuMark> mark = Seal(batch, begun);
  if (mark.ok()) {
    batch.left = begun.size();
    for (Move* move : begun) move->mark = *mark;
    return true;
  }
  for (size_t i = 0; i < begun.size(); ++i) Strand(TakeLastUnderway(), mark.status());
  return false;
}

absl::StatusOr<GpuMark> GpuMover::Seal(Batch& batch, std::span<Move* const> moves) {
  std::vector<GpuPartCheck::Subject> subjects;
  for (Move* move : moves) {
    move->batch = &batch;
    if (!move->up) continue;
    move->checked_as = subjects.size();
    subjects.push_back({move->gpu_room.data(), move->meta.parts, TableChecksum(move->meta.parts)});
  }
  CAIRN_RETURN_IF_ERROR(batch.check->Begin(*stream_, std::move(subjects)));
  return stream_->Mark();
}

GpuMover::MovePtr GpuMover::NextToBegin(size_t batch_entries, uint64_t batch_bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (waiting_.empty() || batch_entries == kBatchEntriesMax) return nullptr;
  const uint64_t bytes = waiting_.front()->bytes;
  if (!underway_.empty() && stats_.underway_bytes + bytes > options_.underway_bytes_max) {
    return nullptr;
  }
  if (batch_entries > 0 && batch_bytes + bytes > options_.underway_bytes_max / 2) return nullptr;
  MovePtr move = std::move(waiting_.front());
  waiting_.pop_front();
  beginning_ = move.get();
  return move;
}

GpuMover::MovePtr GpuMover::TakeLastUnderway() {
  const std::lock_guard<std::mutex> lock(mutex_);
  MovePtr move = std::move(underway_.back());
  underway_.pop_back();
  stats_.underway_bytes -= move->bytes;
  return move;
}

absl::Status GpuMover::Begin(Move& move) {
  if (move.cancelled) return absl::AbortedError("cancelled");
  return move.up ? BeginUp(move) : BeginDown(move);
}

absl::Status GpuMover::BeginUp(Move& move) {
  if (tier_.Contains(move.meta.key)) return absl::AlreadyExistsError("it is on the GPU already");
  const std::span<const uint8_t> payload = move.up.payload();
  CAIRN_ASSIGN_OR_RETURN(move.gpu_room, tier_.Reserve(payload.size(), move.meta.parts.size()));
  return stream_->Copy(payload.data(), move.gpu_room.data(), BytesWithTable(move.meta));
}

absl::Status GpuMover::BeginDown(Move& move) {
  if (host_.Contains(move.meta.key)) {
    return absl::AlreadyExistsError("it is in host memory already");
  }
  const GpuExtent extent = move.down.extent();
  CAIRN_ASSIGN_OR_RETURN(move.host_room,
                         host_.Reserve(extent.payload_bytes, move.meta.parts.size()));
  return stream_->Copy(extent.payload, move.host_room.bytes().data(), extent.payload_bytes);
}

void GpuMover::End(MovePtr move, const absl::Status& status) {
  Count(*move, status);
  const EntryKey key = move->key;
  const Done done = std::move(move->done);
  // Pins and rooms go before anybody is told: who is may count on it.
  move.reset();
  if (done != nullptr) done(key, status);
}

void GpuMover::Strand(MovePtr move, const absl::Status& status) {
  Count(*move, status);
  const EntryKey key = move->key;
  const Done done = std::move(move->done);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stranded_.push_back(std::move(move));
  }
  if (done != nullptr) done(key, status);
}

void GpuMover::Count(const Move& move, const absl::Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!status.ok()) {
    ++stats_.failed_entries;
  } else if (move.up) {
    ++stats_.promoted_entries;
    stats_.promoted_bytes += move.bytes;
  } else {
    ++stats_.demoted_entries;
    stats_.demoted_bytes += move.bytes;
  }
}

GpuMoverStats GpuMover::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  GpuMoverStats stats = stats_;
  stats.waiting_entries = waiting_.size();
  return stats;
}

}  // namespace cairn::store
