#include "cache/client/remote_cache.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "cache/client/answer_check.h"
#include "cache/client/attach_client.h"
#include "cache/client/attach_protocol.h"
#include "cache/client/bulk_client.h"
#include "cache/client/commit_batch.h"
#include "cache/client/commit_call.h"
#include "cache/client/daemon_link.h"
#include "cache/client/lookup_lane.h"
#include "cache/client/protocol.h"
#include "cache/client/receive_pool.h"
#include "cache/client/remote_fetch.h"
#include "cache/client/staging_pool.h"
#include "store/base/random.h"
#include "store/device/byte_stream.h"
#include "store/device/shared_memory.h"

namespace cairn::cache {
namespace {

// For a session that streams: memory of the client's own.
class OwnStaging final : public StagingBuffer {
 public:
  explicit OwnStaging(uint64_t size) : memory_(std::make_unique_for_overwrite<uint8_t[]>(size)) {
    bytes = {memory_.get(), size};
  }

 private:
  std::unique_ptr<uint8_t[]> memory_;
};

bool IsWrongAnswer(const absl::Status& status) {
  return absl::StartsWith(status.message(), "the daemon's answer is wrong");
}

absl::Status CheckChain(std::span<const Digest> chain) {
  if (chain.size() <= kBlocksPerPrefixMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("chain of ", chain.size(), " blocks, at most ",
                                                 kBlocksPerPrefixMax, " are allowed"));
}

// With its door: null is that of TCP.
std::shared_ptr<BulkClient> MakeBulk(const DaemonLink& link,
                                     std::unique_ptr<store::ByteStreamDoor> tls_streams,
                                     absl::Duration stall) {
  store::ByteStreamDoor& door = tls_streams != nullptr ? *tls_streams : store::TcpStreams();
  return {new BulkClient(door, HostOfPeer(link.peer()), link.registered().bulk_port, stall),
          [tls = std::shared_ptr(std::move(tls_streams))](BulkClient* bulk) { delete bulk; }};
}

class RemoteCache final : public CacheApi {
 public:
  // `tls_streams` null: the bulk port is in the clear.
  RemoteCache(std::shared_ptr<DaemonLink> link, const NamespaceSpec& spec,
              const RemoteCacheOptions& options, std::unique_ptr<store::ByteStreamDoor> tls_streams)
      : link_(std::move(link)),
        options_(options),
        mapping_{std::make_shared<const EntryShapes>(spec.layout), link_, nullptr},
        registration_(link_->registered().registration),
        receive_pool_(options.receive_bytes_kept),
        bulk_(MakeBulk(*link_, std::move(tls_streams), options.stall_timeout)) {}

  ~RemoteCache() override { link_->Close(); }

  // Maps the arena if the daemon is on this host. A daemon whose attach socket cannot be reached
  // (another mount namespace, say) is used by streams.
  absl::Status Attach(const std::string& target) {
    const CheckedRegistration& registered = link_->registered();
    if (!options_.map || registered.attach_socket.empty() || registered.arena_bytes == 0) {
      return absl::OkStatus();
    }
    const std::string path = target.substr(sizeof("unix:") - 1);
    const std::string folder = path.substr(0, path.find_last_of('/') + 1);
    attach_ =
        std::make_unique<AttachClient>(store::UnixSockets(), folder + registered.attach_socket,
                                       registered.token, options_.connect_timeout);
    absl::StatusOr<store::SharedMemory> arena = attach_->TakeArena(registered.arena_bytes);
    if (!arena.ok()) {
      return IsWrongAnswer(arena.status()) ? link_->Break(arena.status()) : absl::OkStatus();
    }
    mapping_.arena = std::make_shared<const store::SharedMemory>(*std::move(arena));
    registration_.mapped = true;
    CAIRN_RETURN_IF_ERROR(AttachGpuPool());
    if (options_.gpu != nullptr && options_.pin) PinArena();
    CAIRN_RETURN_IF_ERROR(OpenLane());
    StagingPool::Options pool;
    pool.bytes_max = std::min(options_.staging_bytes_max, kStagingBytesMax);
    pool.pieces_max = kStagingPiecesMax;
    staging_.emplace(pool, [this](int descriptor, uint64_t bytes) {
      return attach_->GiveStaging(descriptor, bytes);
    });
    return absl::OkStatus();
  }

  const Registration& registration() const override { return registration_; }

  absl::StatusOr<MatchResult> Match(std::span<const Digest> chain,
                                    const MatchOptions& options) override {
    CAIRN_RETURN_IF_ERROR(CheckChain(chain));
    std::optional<uint64_t> lease;
    if (options.lease_host && mapping_.arena != nullptr) lease = SystemRandom().Next();
    v1::MatchResponse answer;
    const absl::Status status = AskMatch(chain, &lease, &answer);
    // A lease may have come with an answer that came late.
    if (lease && absl::IsDeadlineExceeded(status)) link_->ReleaseLater(*lease);
    CAIRN_RETURN_IF_ERROR(status);
    CAIRN_ASSIGN_OR_RETURN(MatchResult match, Believed(CheckMatch(answer, chain.size())));
    // Unasked for it is ignored; the session's end frees it.
    if (!lease || !answer.has_leased()) return match;
    const absl::Status checked =
        CheckLeased(answer.leased(), match, mapping_.bytes(), *mapping_.shapes);
    if (!checked.ok()) return link_->Break(checked);
    match.leased = ViewMapped(chain, answer.leased(), mapping_);
    return match;
  }

  absl::StatusOr<std::unique_ptr<FetchedPrefix>> Fetch(const FetchRequest& request) override {
    CAIRN_RETURN_IF_ERROR(CheckChain(request.chain));
    if (request.chain.empty()) return absl::InvalidArgumentError("fetch of an empty chain");
    if (mapping_.arena != nullptr) return FetchMapped(request, mapping_);
    if (options_.bulk && bulk_->usable()) {
      return FetchBulk(request, *mapping_.shapes, link_, receive_pool_, bulk_,
                       options_.bulk_streams);
    }
    return FetchStreamed(request, *mapping_.shapes, link_, receive_pool_);
  }

  absl::StatusOr<std::vector<ReserveResult>> Reserve(std::span<const ReserveItem> items,
                                                     absl::Duration wait) override {
    if (items.empty()) return std::vector<ReserveResult>();
    const int64_t wait_millis =
        std::clamp<int64_t>(absl::ToInt64Milliseconds(wait), 0, kReserveWaitMillisMax);
    v1::ReserveRequest request;
    request.set_token(token());
    request.set_wait_millis(static_cast<uint32_t>(wait_millis));
    for (const ReserveItem& item : items) {
      v1::ReserveItem* out = request.add_items();
      out->set_digest(EncodeDigest(item.key.digest));
      out->set_kind(static_cast<uint32_t>(item.key.kind));
      out->set_parent(EncodeDigest(item.parent));
      out->set_index(item.index);
    }
    v1::ReserveResponse answer;
    CAIRN_RETURN_IF_ERROR(link_->Call(&v1::Cache::Stub::Reserve, request, &answer,
                                      absl::Milliseconds(wait_millis) + options_.call_timeout));
    return Believed(CheckReserve(answer, items.size()));
  }

  absl::StatusOr<std::unique_ptr<StagingBuffer>> Stage(uint64_t bytes) override {
    CAIRN_RETURN_IF_ERROR(link_->Alive());
    if (staging_.has_value()) return staging_->Take(bytes);
    if (bytes == 0 || bytes > kEntryBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("staging of ", bytes, " bytes, must have 1 to ", kEntryBytesMax));
    }
    return std::make_unique<OwnStaging>(RoundUpToIo(bytes));
  }

  absl::StatusOr<std::vector<absl::Status>> Commit(std::span<const CommitItem> items,
                                                   bool durable) override {
    for (const CommitItem& item : items) CAIRN_RETURN_IF_ERROR(CheckItem(item));
    std::vector<absl::Status> statuses;
    while (statuses.size() < items.size()) {
      const auto rest = items.subspan(statuses.size());
      const bool mapped = staging_.has_value();
      const auto batch = rest.first(BatchOf(rest, mapped ? UINT64_MAX : kStreamCommitBytesMax));
      absl::StatusOr<std::vector<absl::Status>> part =
          mapped ? CommitMapped(batch, durable) : CommitStreamed(batch, durable);
      if (!part.ok()) {
        if (statuses.empty()) return part.status();
        // What earlier batches came to is not lost.
        statuses.resize(items.size(), part.status());
        break;
      }
      statuses.insert(statuses.end(), part->begin(), part->end());
    }
    return statuses;
  }

  absl::Status Abort(std::span<const uint64_t> reservations) override {
    while (!reservations.empty()) {
      const auto batch =
          reservations.first(std::min<size_t>(reservations.size(), kReservationsPerSessionMax));
      v1::AbortRequest request;
      request.set_token(token());
      request.mutable_reservations()->Add(batch.begin(), batch.end());
      v1::AbortResponse answer;
      CAIRN_RETURN_IF_ERROR(
          link_->Call(&v1::Cache::Stub::Abort, request, &answer, options_.call_timeout));
      reservations = reservations.subspan(batch.size());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<NamedCount>> Stats() override {
    v1::StatsRequest request;
    request.set_token(token());
    v1::StatsResponse answer;
    CAIRN_RETURN_IF_ERROR(
        link_->Call(&v1::Cache::Stub::Stats, request, &answer, options_.call_timeout));
    absl::StatusOr<std::vector<NamedCount>> counts = Believed(CheckStats(answer));
    if (counts.ok()) {
      counts->push_back({"client_bulk_transfers", bulk_->transfers()});
      counts->push_back({"client_bulk_failures", bulk_->failures()});
      counts->push_back(
          {"client_pinned_bytes", mapping_.pin == nullptr ? 0 : mapping_.pin->pinned_bytes()});
    }
    return counts;
  }

 private:
  // By the lane if there is one. `lease`: in the end the one that was answered.
  absl::Status AskMatch(std::span<const Digest> chain, std::optional<uint64_t>* lease,
                        v1::MatchResponse* answer) {
    CAIRN_RETURN_IF_ERROR(link_->Alive());
    if (lane_ != nullptr) {
      const auto status = lane_->Match(chain, *lease, answer, options_.call_timeout);
      if (status.has_value() && IsWrongAnswer(*status)) return link_->Break(*status);
      if (status.has_value() && !absl::IsUnavailable(*status)) return *status;
      // A number that the daemon may know by now it would refuse.
      if (status.has_value() && lease->has_value()) {
        link_->ReleaseLater(**lease);
        *lease = SystemRandom().Next();
      }
    }
    v1::MatchRequest request;
    request.set_token(token());
    request.set_chain(EncodeChain(chain));
    request.set_lease_host(lease->has_value());
    request.set_lease(lease->value_or(0));
    return link_->Call(&v1::Cache::Stub::Match, request, answer, options_.call_timeout);
  }

  const std::string& token() const { return link_->registered().token; }

  // A daemon that gives none is asked by gRPC.
  absl::Status OpenLane() {
    if (!options_.lookups) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<store::Connection>> lookups = attach_->OpenLookups();
    if (lookups.ok()) {
      lane_ = std::make_unique<LookupLane>(*std::move(lookups));
      return absl::OkStatus();
    }
    return IsWrongAnswer(lookups.status()) ? link_->Break(lookups.status()) : absl::OkStatus();
  }

  // A pool that this process's driver does not take is done without: host memory has the same.
  absl::Status AttachGpuPool() {
    const uint64_t bytes = link_->registered().gpu_bytes;
    if (options_.gpu == nullptr || bytes == 0) return absl::OkStatus();
    absl::StatusOr<store::GpuExport> exported = attach_->TakeGpuPool(bytes);
    if (!exported.ok() && IsWrongAnswer(exported.status())) return link_->Break(exported.status());
    absl::StatusOr<std::unique_ptr<store::GpuRegion>> pool =
        exported.ok() ? options_.gpu->Import(*std::move(exported)) : exported.status();
    if (!pool.ok()) {
      spdlog::warn("the cache daemon's pool in GPU memory is not mapped: {}",
                   std::string(pool.status().message()));
      return absl::OkStatus();
    }
    mapping_.gpu_pool = *std::move(pool);
    registration_.gpu_mapped = true;
    return absl::OkStatus();
  }

  // What is not pinned is read by the CPU.
  void PinArena() {
    mapping_.pin = std::make_shared<const store::BackgroundPin>(
        *options_.gpu, mapping_.arena->bytes(), store::PinnedUse::kReadOnly);
    if (options_.pin_patience <= absl::ZeroDuration()) return;
    if (const absl::Status pinned = mapping_.pin->WaitFor(options_.pin_patience); !pinned.ok()) {
      spdlog::warn("the cache daemon's memory is not all pinned: {}",
                   std::string(pinned.message()));
    }
  }

  template <typename T>
  absl::StatusOr<T> Believed(absl::StatusOr<T> checked) {
    if (!checked.ok()) return link_->Break(checked.status());
    return checked;
  }

  absl::StatusOr<std::vector<absl::Status>> CommitMapped(std::span<const CommitItem> items,
                                                         bool durable) {
    v1::CommitRequest request;
    request.set_token(token());
    request.set_durable(durable);
    for (const CommitItem& item : items) {
      const auto* staging = dynamic_cast<const PooledStaging*>(item.staging);
      if (staging == nullptr) {
        return absl::InvalidArgumentError("commit item: staging was not made by this cache");
      }
      v1::CommitItem* out = request.add_items();
      EncodeItem(item, out);
      out->set_staging(staging->piece);
      out->set_staging_offset(staging->offset);
    }
    v1::CommitResponse answer;
    CAIRN_RETURN_IF_ERROR(
        link_->Call(&v1::Cache::Stub::Commit, request, &answer, options_.commit_timeout));
    return Believed(CheckCommit(answer, items.size()));
  }

  absl::StatusOr<std::vector<absl::Status>> CommitStreamed(std::span<const CommitItem> items,
                                                           bool durable) {
    CAIRN_RETURN_IF_ERROR(link_->Alive());
    DaemonLink::InFlight in_flight(*link_, options_.commit_timeout);
    CommitCall call(link_->channel(), in_flight.context());
    v1::CommitChunk chunk;
    chunk.mutable_head()->set_token(token());
    chunk.mutable_head()->set_durable(durable);
    for (const CommitItem& item : items) EncodeItem(item, chunk.mutable_head()->add_items());
    bool open = call.Write(chunk);
    for (const CommitItem& item : items) {
      std::span<const uint8_t> payload = item.staging->bytes;
      payload = payload.first(PayloadBytes(item));
      while (open && !payload.empty()) {
        const auto slice = payload.first(std::min<size_t>(payload.size(), kStreamSliceBytes));
        chunk.set_data(slice.data(), slice.size());
        open = call.Write(chunk);
        payload = payload.subspan(slice.size());
      }
    }
    CAIRN_RETURN_IF_ERROR(link_->Ended(call.Finish()));
    CAIRN_ASSIGN_OR_RETURN(const v1::CommitResponse answer, Believed(call.Answer()));
    return Believed(CheckCommit(answer, items.size()));
  }

  const std::shared_ptr<DaemonLink> link_;
  const RemoteCacheOptions options_;
  Mapping mapping_;
  Registration registration_;
  std::unique_ptr<AttachClient> attach_;
  std::unique_ptr<LookupLane> lane_;  // null: by gRPC
  std::optional<StagingPool> staging_;
  ReceivePool receive_pool_;
  const std::shared_ptr<BulkClient> bulk_;  // also of fetches that still arrive
};

// The largest honest answer is a fetch of the longest prefix.
uint64_t AnswerBytesMax(const EntryShapes& shapes) {
  constexpr uint64_t kFloor = 8ull << 20, kCeiling = 256ull << 20;
  const uint64_t extent = 64 + 8ull * std::max(shapes.rows.size(), shapes.checkpoint.size());
  return std::clamp(extent * (kBlocksPerPrefixMax + 1), kFloor, kCeiling);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CacheApi>> ConnectCache(const std::string& target,
                                                       const NamespaceSpec& spec,
                                                       const RemoteCacheOptions& options) {
  const bool local = absl::StartsWith(target, "unix:");
  if (target.empty() || (!local && target.find(':') == std::string::npos)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cache target '", target, "' must be unix:/path or host:port"));
  }
  CAIRN_RETURN_IF_ERROR(spec.layout.Validate());
  std::unique_ptr<store::ByteStreamDoor> tls_streams;
  if (!local && options.tls.has_value()) {
    CAIRN_ASSIGN_OR_RETURN(const store::HostPort at, store::ParseHostPort(target));
    CAIRN_ASSIGN_OR_RETURN(tls_streams, store::TlsConnections(*options.tls, at.host));
  }
  CAIRN_ASSIGN_OR_RETURN(
      std::shared_ptr<DaemonLink> link,
      DaemonLink::Open({.target = target,
                        .connect_timeout = options.connect_timeout,
                        .call_timeout = options.call_timeout,
                        .stall_timeout = options.stall_timeout,
                        .answer_bytes_max = AnswerBytesMax(EntryShapes(spec.layout)),
                        .tls = local ? std::nullopt : options.tls},
                       spec));
  auto cache =
      std::make_unique<RemoteCache>(std::move(link), spec, options, std::move(tls_streams));
  if (local) CAIRN_RETURN_IF_ERROR(cache->Attach(target));
  return cache;
}

}  // namespace cairn::cache
