#include "tests/lies/lying_daemon.h"

#include "cache/client/commit_call.h"
#include "cache/client/protocol.h"
#include "tests/faults/campaign.h"

namespace cairn::lies {
namespace {

// With the caller's deadline, and cancelled when it is.
std::unique_ptr<grpc::ClientContext> Onwards(grpc::ServerContext* context) {
  return grpc::ClientContext::FromServerContext(*context);
}

}  // namespace

LyingDaemon::LyingDaemon(const std::string& listen, const std::string& real, Liar& liar)
    : liar_(liar),
      channel_(grpc::CreateChannel(real, grpc::InsecureChannelCredentials())),
      real_(v1::Cache::NewStub(channel_)) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  faults::Expect(server_ != nullptr, "the lying daemon cannot listen at " + listen);
}

LyingDaemon::~LyingDaemon() { server_->Shutdown(std::chrono::system_clock::time_point::min()); }

template <typename Request, typename Response>
grpc::Status LyingDaemon::Unary(const std::string& name,
                                grpc::Status (v1::Cache::Stub::*method)(grpc::ClientContext*,
                                                                        const Request&, Response*),
                                grpc::ServerContext* context, const Request& request,
                                Response* response) {
  const auto onwards = Onwards(context);
  const grpc::Status status = (real_.get()->*method)(onwards.get(), request, response);
  if (status.ok()) liar_.Speak(name, *response);
  return status;
}

template <typename Event>
grpc::Status LyingDaemon::Stream(const std::string& name, grpc::ClientReader<Event>& from,
                                 grpc::ServerWriter<Event>& to) {
  Event event;
  while (from.Read(&event)) {
    liar_.Speak(name, event);
    if (!to.Write(event)) break;
  }
  return from.Finish();
}

grpc::Status LyingDaemon::Session(grpc::ServerContext* context, const v1::SessionRequest* request,
                                  grpc::ServerWriter<v1::SessionEvent>* writer) {
  const auto onwards = Onwards(context);
  return Stream("Session", *real_->Session(onwards.get(), *request), *writer);
}

grpc::Status LyingDaemon::FetchStream(grpc::ServerContext* context, const v1::FetchRequest* request,
                                      grpc::ServerWriter<v1::FetchChunk>* writer) {
  const auto onwards = Onwards(context);
  return Stream("FetchStream", *real_->FetchStream(onwards.get(), *request), *writer);
}

grpc::Status LyingDaemon::CommitStream(grpc::ServerContext* context,
                                       grpc::ServerReader<v1::CommitChunk>* reader,
                                       v1::CommitResponse* response) {
  const auto onwards = Onwards(context);
  cache::CommitCall call(*channel_, onwards.get());
  v1::CommitChunk chunk;
  while (reader->Read(&chunk) && call.Write(chunk)) {
  }
  if (const grpc::Status status = call.Finish(); !status.ok()) return status;
  auto answer = call.Answer();
  if (!answer.ok()) return cache::ToGrpc(answer.status());
  *response = *std::move(answer);
  liar_.Speak("CommitStream", *response);
  return grpc::Status::OK;
}

grpc::Status LyingDaemon::Match(grpc::ServerContext* context, const v1::MatchRequest* request,
                                v1::MatchResponse* response) {
  return Unary("Match", &v1::Cache::Stub::Match, context, *request, response);
}

grpc::Status LyingDaemon::Fetch(grpc::ServerContext* context, const v1::FetchRequest* request,
                                v1::MappedPrefix* response) {
  return Unary("Fetch", &v1::Cache::Stub::Fetch, context, *request, response);
}

grpc::Status LyingDaemon::FetchBulk(grpc::ServerContext* context, const v1::FetchRequest* request,
                                    v1::BulkResponse* response) {
  return Unary("FetchBulk", &v1::Cache::Stub::FetchBulk, context, *request, response);
}

grpc::Status LyingDaemon::Reserve(grpc::ServerContext* context, const v1::ReserveRequest* request,
                                  v1::ReserveResponse* response) {
  return Unary("Reserve", &v1::Cache::Stub::Reserve, context, *request, response);
}

grpc::Status LyingDaemon::Commit(grpc::ServerContext* context, const v1::CommitRequest* request,
                                 v1::CommitResponse* response) {
  return Unary("Commit", &v1::Cache::Stub::Commit, context, *request, response);
}

grpc::Status LyingDaemon::Abort(grpc::ServerContext* context, const v1::AbortRequest* request,
                                v1::AbortResponse* response) {
  return Unary("Abort", &v1::Cache::Stub::Abort, context, *request, response);
}

grpc::Status LyingDaemon::Release(grpc::ServerContext* context, const v1::ReleaseRequest* request,
                                  v1::ReleaseResponse* response) {
  return Unary("Release", &v1::Cache::Stub::Release, context, *request, response);
}

}  // namespace cairn::lies
