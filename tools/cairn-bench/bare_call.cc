#include "tools/cairn-bench/bare_call.h"

#include <grpcpp/grpcpp.h>

#include <cstdio>

#include "cairn/v1/cache.grpc.pb.h"
#include "tools/cairn-bench/serving_child.h"

namespace cairn::bench {
namespace {

// Answers one call with nothing, as our service answers what needs only the index.
class EmptyService final : public v1::Cache::CallbackService {
 public:
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const v1::ReleaseRequest*,
                                    v1::ReleaseResponse*) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

std::string TargetIn(const std::string& directory) { return "unix:" + directory + "/bare.sock"; }

class Caller final : public BareCall {
 public:
  Caller(std::unique_ptr<ServingChild> server, const std::string& target)
      : server_(std::move(server)) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::Cache::NewStub(
        grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments));
  }
  absl::Status Call() override {
    grpc::ClientContext context;
    context.set_deadline(gpr_time_from_seconds(10, GPR_TIMESPAN));
    v1::ReleaseResponse answer;
    const grpc::Status status = stub_->Release(&context, v1::ReleaseRequest(), &answer);
    return status.ok() ? absl::OkStatus() : absl::UnavailableError(status.error_message());
  }

 private:
  const std::unique_ptr<ServingChild> server_;
  std::unique_ptr<v1::Cache::Stub> stub_;
};

}  // namespace

int BareServe(const std::string& directory) {
  EmptyService service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(TargetIn(directory), grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server != nullptr) ServingChild::ServeUntilLetGo("serving");
  std::fprintf(stderr, "cairn-bench %s: cannot listen in %s\n", kBareServe, directory.c_str());
  return 1;
}

absl::StatusOr<std::unique_ptr<BareCall>> BareCall::Start(const std::string& directory) {
  CAIRN_ASSIGN_OR_RETURN(auto server, ServingChild::Start(kBareServe, directory));
  auto caller = std::make_unique<Caller>(std::move(server), TargetIn(directory));
  CAIRN_RETURN_IF_ERROR(caller->Call());
  return caller;
}

}  // namespace cairn::bench
