#include "cache/service/admin_service.h"

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "cache/client/protocol.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

void EncodeListed(const ListedPrefix& in, v1::ListedPrefix* out) {
  out->set_digest(EncodeDigest(in.digest));
  out->set_namespace_root(EncodeDigest(in.namespace_root));
  out->set_index(in.index);
  out->set_rows_host(in.rows_host);
  out->set_rows_disk(in.rows_disk);
  out->set_checkpoint_host(in.checkpoint_host);
  out->set_checkpoint_disk(in.checkpoint_disk);
  out->set_rows_gpu(in.rows_gpu);
  out->set_checkpoint_gpu(in.checkpoint_gpu);
  out->set_pinned(in.pinned);
  out->set_leases(in.leases);
  out->set_last_used_wall_micros(in.last_used_wall_micros);
  out->set_bytes(in.bytes);
}

void EncodeReport(const VerifyReport& report, bool done, v1::VerifyEvent* out) {
  out->set_entries(report.entries);
  out->set_bytes(report.bytes);
  out->set_damaged(report.damaged());
  out->set_done(done);
  out->set_total_entries(report.total_entries);
  out->set_total_bytes(report.total_bytes);
  out->set_damaged_host(report.damaged_host);
  out->set_damaged_disk(report.damaged_disk);
  out->set_damaged_gpu(report.damaged_gpu);
  out->set_healed(report.healed);
  out->set_unreadable(report.unreadable);
  out->set_elapsed_millis(static_cast<uint64_t>(absl::ToInt64Milliseconds(report.elapsed)));
}

}  // namespace

absl::StatusOr<Digest> AdminService::Resolve(const std::string& prefix) {
  if (const std::optional<Digest> whole = Digest::FromBytes(prefix)) return *whole;
  const std::vector<ListedPrefix> all = state_.core.List({.limit = kListEntriesMax});
  const std::string hex = absl::BytesToHexString(prefix);
  std::optional<Digest> found;
  for (const ListedPrefix& listed : all) {
    if (!absl::StartsWith(EncodeDigest(listed.digest), prefix)) continue;
    if (found.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("digest ", hex, ": names several blocks; give more of it"));
    }
    found = listed.digest;
  }
  if (all.size() >= kListEntriesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("digest ", hex, ": over ", kListEntriesMax,
                     " blocks are stored, so a beginning may not be unique; give all of it"));
  }
  if (!found.has_value()) {
    return absl::NotFoundError(absl::StrCat("no block's digest begins with ", hex));
  }
  return *found;
}

absl::StatusOr<ListFilter> AdminService::Resolve(const DecodedFilter& filter) {
  ListFilter out;
  out.limit = kListEntriesMax;
  out.namespace_root = filter.namespace_root;
  out.unused_for = filter.unused_for;
  if (!filter.prefix.empty()) {
    CAIRN_ASSIGN_OR_RETURN(out.prefix, Resolve(filter.prefix));
  }
  return out;
}

grpc::Status AdminService::Version(grpc::ServerContext*, const v1::VersionRequest*,
                                   v1::VersionResponse* out) {
  out->set_daemon_version(state_.daemon_version);
  out->set_protocol_version(kProtocolVersion);
  out->set_layout_version(kLayoutVersion);
  out->set_uptime_seconds(
      static_cast<uint64_t>((clock_.NowNanos() - started_nanos_) / 1'000'000'000));
  return grpc::Status::OK;
}

grpc::Status AdminService::Stats(grpc::ServerContext*, const v1::AdminStatsRequest*,
                                 v1::StatsResponse* out) {
  for (const NamedCount& count : state_.Stats()) {
    v1::NamedCount* to = out->add_counts();
    to->set_name(count.name);
    to->set_value(count.value);
  }
  return grpc::Status::OK;
}

grpc::Status AdminService::List(grpc::ServerContext*, const v1::ListRequest* request,
                                v1::ListResponse* out) {
  const auto list = [&]() -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const DecodedFilter decoded, DecodeFilter(request->filter()));
    CAIRN_ASSIGN_OR_RETURN(const uint32_t limit, DecodeListLimit(*request));
    CAIRN_ASSIGN_OR_RETURN(ListFilter filter, Resolve(decoded));
    filter.limit = limit;
    filter.leaves_only = request->leaves_only();
    for (const ListedPrefix& listed : state_.core.List(filter)) {
      EncodeListed(listed, out->add_prefixes());
    }
    return absl::OkStatus();
  };
  return ToGrpc(list());
}

grpc::Status AdminService::Evict(grpc::ServerContext*, const v1::EvictRequest* request,
                                 v1::EvictResponse* out) {
  const auto evict = [&]() -> absl::Status {
    CAIRN_ASSIGN_OR_RETURN(const DecodedFilter decoded, DecodeFilter(request->filter()));
    if (decoded.empty() != request->all()) {
      return absl::InvalidArgumentError(
          "evict: give a filter, or all = true to evict everything, and not both");
    }
    CAIRN_ASSIGN_OR_RETURN(const ListFilter filter, Resolve(decoded));
    uint64_t kept = 0;
    CAIRN_ASSIGN_OR_RETURN(const uint64_t evicted, state_.core.Evict(filter, &kept));
    out->set_evicted_entries(evicted);
    out->set_kept_entries(kept);
    return absl::OkStatus();
  };
  return ToGrpc(evict());
}

absl::Status AdminService::SetPin(const v1::PinRequest& request, bool pin, v1::PinResponse* out) {
  CAIRN_RETURN_IF_ERROR(ValidateDigestPrefix("digest", request.digest()));
  CAIRN_ASSIGN_OR_RETURN(const Digest digest, Resolve(request.digest()));
  CAIRN_RETURN_IF_ERROR(state_.core.Pin(digest, pin));
  out->set_digest(EncodeDigest(digest));
  return absl::OkStatus();
}

grpc::Status AdminService::Pin(grpc::ServerContext*, const v1::PinRequest* request,
                               v1::PinResponse* out) {
  return ToGrpc(SetPin(*request, true, out));
}

grpc::Status AdminService::Unpin(grpc::ServerContext*, const v1::PinRequest* request,
                                 v1::PinResponse* out) {
  return ToGrpc(SetPin(*request, false, out));
}

grpc::Status AdminService::Verify(grpc::ServerContext* context, const v1::VerifyRequest* request,
                                  grpc::ServerWriter<v1::VerifyEvent>* writer) {
  if (verifying_.exchange(true)) {
    return ToGrpc(absl::ResourceExhaustedError(
        "verify: another one is running; wait for its end, or end it"));
  }
  const auto verify = [&]() -> absl::Status {
    VerifyOptions options{.bytes_per_second = request->bytes_per_second()};
    CAIRN_ASSIGN_OR_RETURN(const DecodedFilter decoded, DecodeFilter(request->filter()));
    CAIRN_ASSIGN_OR_RETURN(options.filter, Resolve(decoded));
    v1::VerifyEvent event;
    CAIRN_ASSIGN_OR_RETURN(const VerifyReport report,
                           state_.core.Verify(options, [&](const VerifyReport& so_far) {
                             EncodeReport(so_far, false, &event);
                             return !stopping_ && !context->IsCancelled() && writer->Write(event);
                           }));
    EncodeReport(report, true, &event);
    writer->Write(event);
    return absl::OkStatus();
  };
  const absl::Status status = verify();
  verifying_ = false;
  return ToGrpc(stopping_ && absl::IsCancelled(status)
                    ? absl::UnavailableError("the daemon stops; verify again once it is back")
                    : status);
}

grpc::Status AdminService::Flush(grpc::ServerContext*, const v1::FlushRequest* request,
                                 v1::FlushResponse*) {
  const absl::StatusOr<absl::Duration> deadline = DecodeFlush(*request);
  if (!deadline.ok()) return ToGrpc(deadline.status());
  return ToGrpc(state_.core.Flush(*deadline));
}

}  // namespace cairn::cache
