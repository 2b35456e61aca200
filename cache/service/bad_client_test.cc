// Goal: a client that sends nonsense gets one line that names it, and hurts nobody. Method: raw
// calls to a real daemon.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <future>
#include <utility>

#include "cache/client/attach_client.h"
#include "cache/client/protocol.h"
#include "cache/core/stopped_reader.h"
#include "cache/service/raw_client.h"
#include "cache/service/refusal.h"
#include "cache/service/service_rig.h"
#include "gmock/gmock.h"

namespace cairn::cache {
namespace {

TEST(BadClient, NonsenseFromAClientIsNamed) {
  ServiceRig rig;
  RawClient client(rig.unix_target());
  v1::MatchResponse out;
  v1::MatchRequest request;
  const auto match = [&] {
    grpc::ClientContext context;
    return client.stub->Match(&context, request, &out);
  };
  request.set_token(client.token);
  EXPECT_TRUE(match().ok());
  request.set_chain(std::string(31, 'c'));
  EXPECT_EQ(match().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_token("short");
  EXPECT_EQ(match().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_token(std::string(kTokenBytes, 'x'));
  EXPECT_EQ(match().error_code(), grpc::StatusCode::ABORTED);
  request.set_chain(std::string(kRequestBytesMax, 'c'));
  EXPECT_EQ(match().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(rig.server->state().counters.invalid_calls, 2u);
}

TEST(BadClient, OffsetsAreForThoseWhoMap) {
  ServiceRig rig;
  RawClient client(rig.tcp_target());
  v1::FetchRequest request;
  request.set_token(client.token);
  request.set_chain(std::string(32, 'c'));
  request.set_deadline_millis(1000);
  v1::MappedPrefix out;
  grpc::ClientContext context;
  EXPECT_EQ(client.stub->Fetch(&context, request, &out).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

grpc::Status SendCommit(RawClient& client, const std::vector<v1::CommitChunk>& chunks,
                        bool deadline = true) {
  grpc::ClientContext context;
  if (deadline) context.set_deadline(gpr_time_from_millis(20'000, GPR_TIMESPAN));
  v1::CommitResponse out;
  auto writer = client.stub->CommitStream(&context, &out);
  for (const v1::CommitChunk& chunk : chunks) {
    if (!writer->Write(chunk)) break;
  }
  writer->WritesDone();
  return writer->Finish();
}

TEST(Overload, ARefusalComesAtOnceAndSaysWhenToComeAgain) {
  ServiceRig rig;
  RawClient client(rig.unix_target());
  std::promise<void> release;
  const std::shared_future<void> held = release.get_future().share();
  while (!rig.server->state().bulk.TryRun([held] { held.wait(); }).has_value()) {
  }
  v1::FetchRequest request;
  request.set_token(client.token);
  request.set_deadline_millis(1000);
  const auto expect_refused = [&](const grpc::Status& status, const grpc::ClientContext& context) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(status.error_message(), testing::HasSubstr("come again in "));
    const auto& trailing = context.GetServerTrailingMetadata();
    const auto pushback = trailing.find(kPushbackKey);
    ASSERT_NE(pushback, trailing.end());
    EXPECT_GE(std::stoi(std::string(pushback->second.data(), pushback->second.size())), 1);
  };
  grpc::ClientContext unary, stream;
  v1::MappedPrefix answer;
  expect_refused(client.stub->Fetch(&unary, request, &answer), unary);
  stream.set_deadline(gpr_time_from_millis(60'000, GPR_TIMESPAN));
  const auto reader = client.stub->FetchStream(&stream, request);
  v1::FetchChunk chunk;
  EXPECT_FALSE(reader->Read(&chunk));
  expect_refused(reader->Finish(), stream);
  EXPECT_EQ(rig.server->state().counters.refused_calls, 2u);
  release.set_value();
}

TEST(BadClient, CommitStreamsThatDoNotFit) {
  ServiceRig rig;
  RawClient client(rig.tcp_target());
  v1::CommitChunk head;
  head.mutable_head()->set_token(client.token);
  v1::CommitItem* item = head.mutable_head()->add_items();
  item->set_reservation(1);
  item->add_part_bytes(100);
  item->add_part_xxh3(1);
  const auto data = [](size_t bytes) {
    v1::CommitChunk chunk;
    chunk.set_data(std::string(bytes, 'd'));
    return chunk;
  };
  v1::CommitChunk huge = head;
  huge.mutable_head()->mutable_items(0)->set_part_bytes(0, UINT32_MAX);
  for (const auto& chunks : std::vector<std::vector<v1::CommitChunk>>{{},
                                                                      {data(10)},
                                                                      {huge},
                                                                      {head, data(99)},
                                                                      {head, data(101)},
                                                                      {head, data(0)},
                                                                      {head, head},
                                                                      {head, data(100), data(1)}}) {
    const grpc::Status status = SendCommit(client, chunks);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  }
  EXPECT_TRUE(SendCommit(client, {head, data(60), data(40)}).ok());  // refused item by item
  const grpc::Status endless = SendCommit(client, {head, data(100)}, false);
  EXPECT_EQ(endless.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(endless.error_message().find("deadline"), std::string::npos);
}

TEST(BadClient, StagingMustBeSealedAndInBounds) {
  ServiceRig rig;
  RawClient client(rig.unix_target());
  AttachClient attach(store::UnixSockets(), rig.folder / "cairn.sock.fd", client.token,
                      absl::Seconds(20));
  const auto memory = *store::SharedMemory::Create("s", {.bytes = 8192});
  EXPECT_TRUE(attach.GiveStaging(memory.descriptor(), 8192).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(attach.GiveStaging(memory.descriptor(), 4096).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(attach.GiveStaging(memory.descriptor(), 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(attach.GiveStaging(-1, 8192).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(
      attach.GiveStaging(memory.descriptor(), kStagingBytesMax).status()));
  const store::FileDescriptor open(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(open.get(), 8192), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(attach.GiveStaging(open.get(), 8192).status()));
  AttachClient stranger(store::UnixSockets(), rig.folder / "cairn.sock.fd",
                        std::string(kTokenBytes, 'x'), absl::Seconds(20));
  EXPECT_TRUE(absl::IsAborted(stranger.TakeArena(rig.core.core->arena_bytes()).status()));

  // A range that leaves its piece is refused before a byte of it is read.
  v1::CommitRequest request;
  request.set_token(client.token);
  v1::CommitItem* item = request.add_items();
  item->add_part_bytes(100);
  item->add_part_xxh3(1);
  for (const auto& [piece, offset] :
       {std::pair<uint32_t, uint64_t>{1, 0}, {0, 8093}, {0, UINT64_MAX - 50}}) {
    item->set_staging(piece);
    item->set_staging_offset(offset);
    grpc::ClientContext context;
    v1::CommitResponse out;
    EXPECT_EQ(client.stub->Commit(&context, request, &out).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST(BadClient, AReservationOutlivesItsSessionForAsLongAsItsCommitCopies) {
  ServiceRig rig;
  RawClient client(rig.unix_target());
  AttachClient attach(store::UnixSockets(), rig.folder / "cairn.sock.fd", client.token,
                      absl::Seconds(20));
  const auto memory = *store::SharedMemory::Create("s", {.bytes = 4096});
  ASSERT_TRUE(attach.GiveStaging(memory.descriptor(), 4096).ok());
  const auto chain = rig.core.Chain(1);
  const auto item = rig.core.Item(chain, 0, EntryKind::kRows);
  const std::vector<uint8_t> payload = PayloadOf(item.key);
  std::copy(payload.begin(), payload.end(), memory.writable().begin());

  const auto session = *rig.server->state().sessions.Find(client.token);
  v1::CommitRequest request;
  request.set_token(client.token);
  v1::CommitItem* const out = request.add_items();
  out->set_reservation(rig.core.Reserve(item, session->core_id()));
  for (const EntryPart& part : PartsOf(EntryKind::kRows, payload)) {
    out->add_part_bytes(part.bytes);
    out->add_part_xxh3(part.xxh3);
  }
  const StoppedReader reader(*session->StagingRange(0, 0, 4096));
  auto commit = std::async(std::launch::async, [request, stub = client.stub.get()] {
    grpc::ClientContext context;
    v1::CommitResponse answer;
    return stub->Commit(&context, request, &answer).ok();
  });
  reader.Await();
  client.session.TryCancel();
  ASSERT_TRUE(Eventually([&] { return rig.core.Stat("open_sessions") == 1; }));
  EXPECT_EQ(rig.core.Stat("open_reservations"), 1u);
  EXPECT_FALSE(ClientsAreGone(rig.core, *rig.server));
  reader.LetGo();
  EXPECT_TRUE(commit.get());
  ASSERT_TRUE(Eventually([&] { return ClientsAreGone(rig.core, *rig.server); }));
  EXPECT_EQ(rig.core.Stat("open_reservations"), 0u);
  EXPECT_EQ(rig.core.Rows(chain), 1u);
}

TEST(BadClient, ArenaDescriptorsCannotBeWrittenThrough) {
  ServiceRig rig;
  RawClient client(rig.unix_target());
  AttachClient attach(store::UnixSockets(), rig.folder / "cairn.sock.fd", client.token,
                      absl::Seconds(20));
  const auto arena = attach.TakeArena(rig.core.core->arena_bytes());
  ASSERT_TRUE(arena.ok()) << arena.status();
  EXPECT_TRUE(arena->writable().empty());
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, rig.core.core->arena_fd(), 0),
            MAP_FAILED);
}

TEST(Sockets, ALiveOneIsRefusedAStaleOneReplacedAFileKept) {
  TestFolder folder;
  CoreRig core({.disk_bytes = 0});
  auto first = StartServer(*core.core, core.clock, folder);
  ASSERT_TRUE(first.ok()) << first.status();
  for (const char* name : {"cairn.sock", "admin.sock", "cairn.sock.fd"}) {
    struct stat info {};
    ASSERT_EQ(::stat((folder / name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u) << name;
  }
  const auto second = StartServer(*core.core, core.clock, folder);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  EXPECT_TRUE(ConnectCache("unix:" + folder / "cairn.sock", RigSpec(), PatientOptions()).ok());
  first->reset();

  // What a killed daemon leaves: files that nobody answers on.
  for (const char* name : {"cairn.sock", "admin.sock"}) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = folder / name;
    std::memcpy(address.sun_path, path.data(), path.size());
    const store::FileDescriptor stale(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  auto third = StartServer(*core.core, core.clock, folder);
  ASSERT_TRUE(third.ok()) << third.status();
  third->reset();

  const store::FileDescriptor file(
      ::open((folder / "cairn.sock").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  ASSERT_TRUE(file.valid());
  EXPECT_TRUE(absl::IsFailedPrecondition(StartServer(*core.core, core.clock, folder).status()));
  EXPECT_TRUE(std::filesystem::is_regular_file(folder / "cairn.sock"));
}

}  // namespace
}  // namespace cairn::cache
