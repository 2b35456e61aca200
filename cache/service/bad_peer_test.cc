// Goal: neither side can hurt the other. A daemon that lies or hangs costs an error or a deadline;
// a client that sends nonsense gets one line that names it. Method: a core that answers what it is
// told, a service that does, and raw calls.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <functional>
#include <future>
#include <utility>

#include "cache/client/attach_client.h"
#include "cache/client/protocol.h"
#include "cache/service/service_rig.h"

namespace cairn::cache {
namespace {

// Answers Match and Fetch by what the test says; all else as an empty cache.
class ScriptedCore final : public CacheCore {
 public:
  ScriptedCore() : arena_(*store::SharedMemory::Create("scripted", {.bytes = 64 * kIoAlignment})) {}

  std::function<absl::StatusOr<MatchResult>()> match = [] { return MatchResult(); };
  std::function<absl::StatusOr<LeasedPrefix>()> fetch = [] { return LeasedPrefix(); };
  uint64_t claimed_arena_bytes = 64 * kIoAlignment;

  // An entry of true bytes and sizes for the rig's layout.
  LeasedEntry Entry(EntryKind kind, uint64_t offset) {
    const EntryKey key{{}, kind};
    const std::vector<uint8_t> payload = PayloadOf(key);
    std::copy(payload.begin(), payload.end(), arena_.writable().begin() + ptrdiff_t(offset));
    return {key, offset, arena_.bytes().subspan(offset, payload.size()), PartsOf(kind, payload)};
  }

  absl::StatusOr<SessionId> OpenSession(const NamespaceSpec&, Registration*) override { return 1; }
  void CloseSession(SessionId) override {}
  absl::StatusOr<MatchResult> Match(SessionId, std::span<const Digest>) override { return match(); }
  absl::StatusOr<LeasedPrefix> Fetch(SessionId, const FetchRequest&) override { return fetch(); }
  absl::Status Release(SessionId, LeaseId) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<ReserveResult>> Reserve(SessionId, std::span<const ReserveItem>,
                                                     absl::Duration) override {
    return std::vector<ReserveResult>(3);
  }
  absl::StatusOr<std::vector<absl::Status>> Commit(SessionId, std::span<const CoreCommitItem>,
                                                   bool) override {
    return std::vector<absl::Status>();
  }
  absl::Status Abort(SessionId, std::span<const uint64_t>) override { return absl::OkStatus(); }
  std::vector<NamedCount> Stats() override { return std::vector<NamedCount>(2000); }
  std::vector<ListedPrefix> List(const ListFilter&) override { return {}; }
  absl::StatusOr<uint64_t> Evict(const ListFilter&, uint64_t*) override { return 0; }
  absl::Status Pin(const Digest&, bool) override { return absl::OkStatus(); }
  absl::StatusOr<VerifyReport> Verify(const ListFilter&,
                                      const std::function<void(const VerifyReport&)>&) override {
    return VerifyReport();
  }
  absl::Status Flush(absl::Duration) override { return absl::OkStatus(); }
  int arena_fd() const override { return arena_.descriptor(); }
  uint64_t arena_bytes() const override { return claimed_arena_bytes; }

 private:
  store::SharedMemory arena_;
};

class LyingDaemon : public testing::Test {
 protected:
  void Start() {
    auto started = StartServer(core_, RealClock(), folder_, "127.0.0.1:0");
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = std::move(*started);
  }
  std::unique_ptr<CacheApi> Connect(bool mapped) {
    const std::string target =
        mapped ? "unix:" + folder_ / "cairn.sock" : absl::StrCat("127.0.0.1:", server_->tcp_port());
    auto cache = ConnectCache(target, RigSpec(), PatientOptions());
    EXPECT_TRUE(cache.ok()) << cache.status();
    return std::move(*cache);
  }
  // The call is refused, and the daemon is not asked again.
  static void ExpectBroken(CacheApi& cache, const absl::Status& status) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_NE(std::string(status.message()).find("wrong"), std::string::npos) << status;
    EXPECT_TRUE(absl::IsUnavailable(cache.Match({}).status()));
  }

  TestFolder folder_;
  ScriptedCore core_;
  std::unique_ptr<CacheServer> server_;
  const std::vector<Digest> chain_ = std::vector<Digest>(2);
};

TEST_F(LyingDaemon, AnHonestAnswerIsTaken) {
  Start();
  core_.fetch = [&] {
    LeasedPrefix prefix;
    prefix.rows = {core_.Entry(EntryKind::kRows, 4096), core_.Entry(EntryKind::kRows, 8192)};
    prefix.checkpoint = core_.Entry(EntryKind::kCheckpoint, 12288);
    return prefix;
  };
  for (const bool mapped : {true, false}) {
    const auto cache = Connect(mapped);
    const auto prefix = cache->Fetch({.chain = chain_});
    ASSERT_TRUE(prefix.ok()) << prefix.status();
    ExpectPrefix(**prefix, chain_);
  }
}

TEST_F(LyingDaemon, FetchesThatDoNotFit) {
  Start();
  const std::vector<std::function<void(LeasedPrefix&)>> lies = {
      [](auto& p) { p.rows[0].arena_offset = 64 * kIoAlignment; },
      [](auto& p) { p.rows[0].arena_offset = UINT64_MAX - 4095; },
      [](auto& p) { p.checkpoint->arena_offset = 63 * kIoAlignment; },
      [](auto& p) { p.rows.push_back(p.rows[0]); },
      [](auto& p) { p.rows[1].payload = p.rows[1].payload.first(2147); },
      [](auto& p) { p.rows[1].parts.pop_back(); },
      [](auto& p) {
        p.checkpoint->parts.push_back({1, 1});
      },
  };
  for (size_t i = 0; i < lies.size(); ++i) {
    core_.fetch = [&] {
      LeasedPrefix prefix;
      prefix.rows = {core_.Entry(EntryKind::kRows, 4096), core_.Entry(EntryKind::kRows, 8192)};
      prefix.checkpoint = core_.Entry(EntryKind::kCheckpoint, 12288);
      lies[i](prefix);
      return prefix;
    };
    SCOPED_TRACE(i);
    const auto cache = Connect(true);
    ExpectBroken(*cache, cache->Fetch({.chain = chain_}).status());
    if (i < 3) continue;  // a stream has no offsets
    const auto streamed = Connect(false);
    ExpectBroken(*streamed, streamed->Fetch({.chain = chain_}).status());
  }
}

TEST_F(LyingDaemon, OtherAnswersThatDoNotFit) {
  Start();
  core_.match = [] { return MatchResult{3, 0, {}}; };
  auto cache = Connect(true);
  ExpectBroken(*cache, cache->Match(chain_).status());
  cache = Connect(true);
  const ReserveItem item;
  ExpectBroken(*cache, cache->Reserve({&item, 1}, absl::ZeroDuration()).status());
  for (const bool mapped : {true, false}) {
    cache = Connect(mapped);
    auto staging = *cache->Stage(10);
    const CommitItem commit{1, staging.get(), {{10, 1}}};
    ExpectBroken(*cache, cache->Commit({&commit, 1}, false).status());
  }
  cache = Connect(true);
  ExpectBroken(*cache, cache->Stats().status());
}

TEST_F(LyingDaemon, AnArenaThatIsNotAsRegisteredIsNotMapped) {
  core_.claimed_arena_bytes = 65 * kIoAlignment;
  Start();
  const auto cache = ConnectCache("unix:" + folder_ / "cairn.sock", RigSpec(), PatientOptions());
  EXPECT_TRUE(absl::IsUnavailable(cache.status())) << cache.status();
}

TEST_F(LyingDaemon, AHungCallCostsItsDeadline) {
  Start();
  std::promise<void> release;
  const std::shared_future<void> held = release.get_future().share();
  core_.match = [held] {
    held.wait();
    return MatchResult();
  };
  RemoteCacheOptions options = PatientOptions();
  options.call_timeout = absl::Milliseconds(50);
  auto cache = ConnectCache("unix:" + folder_ / "cairn.sock", RigSpec(), options);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const int64_t begin = RealClock().NowNanos();
  EXPECT_TRUE(absl::IsDeadlineExceeded((*cache)->Match(chain_).status()));
  EXPECT_GE(RealClock().NowNanos() - begin, 45'000'000);
  EXPECT_LT(RealClock().NowNanos() - begin, 10'000'000'000);
  release.set_value();
}

TEST(BadPeer, ADaemonThatNeverAnswersCostsTheConnectTimeout) {
  TestFolder folder;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = folder / "hung.sock";
  std::memcpy(address.sun_path, path.data(), path.size());
  const store::FileDescriptor hung(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(hung.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(hung.get(), 5), 0);
  RemoteCacheOptions options;
  options.connect_timeout = absl::Milliseconds(100);
  const int64_t begin = RealClock().NowNanos();
  const auto cache = ConnectCache("unix:" + path, RigSpec(), options);
  EXPECT_TRUE(absl::IsDeadlineExceeded(cache.status())) << cache.status();
  EXPECT_LT(RealClock().NowNanos() - begin, 10'000'000'000);
}

TEST(BadPeer, NobodyThereIsOneClearLine) {
  TestFolder folder;
  const auto cache = ConnectCache("unix:" + folder / "none.sock", RigSpec(), PatientOptions());
  EXPECT_TRUE(absl::IsUnavailable(cache.status())) << cache.status();
  EXPECT_NE(std::string(cache.status().message()).find("none.sock"), std::string::npos);
  for (const char* target : {"", "nonsense"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ConnectCache(target, RigSpec()).status()));
  }
}

// Streams by script, which no honest service sends.
class ScriptedService final : public v1::Cache::Service {
 public:
  std::vector<v1::FetchChunk> chunks;
  std::promise<void> stop;

  grpc::Status Session(grpc::ServerContext*, const v1::SessionRequest*,
                       grpc::ServerWriter<v1::SessionEvent>* writer) override {
    v1::SessionEvent event;
    v1::Registration* registration = event.mutable_registration();
    registration->set_protocol_version(kProtocolVersion);
    registration->set_layout_version(kLayoutVersion);
    registration->set_token(std::string(kTokenBytes, 't'));
    registration->set_root(std::string(Digest::kBytes, 'r'));
    registration->set_policy("full");
    writer->Write(event);
    stopped_.wait();
    return grpc::Status::OK;
  }
  grpc::Status FetchStream(grpc::ServerContext*, const v1::FetchRequest*,
                           grpc::ServerWriter<v1::FetchChunk>* writer) override {
    for (const v1::FetchChunk& chunk : chunks) writer->Write(chunk);
    return grpc::Status::OK;
  }

 private:
  const std::shared_future<void> stopped_ = stop.get_future().share();
};

v1::FetchChunk HeadOfOneRow() {
  v1::FetchChunk chunk;
  v1::Extent* row = chunk.mutable_head()->add_rows();
  row->set_payload_bytes(2148);
  row->add_part_xxh3(1);
  row->add_part_xxh3(2);
  return chunk;
}

v1::FetchChunk Data(size_t bytes) {
  v1::FetchChunk chunk;
  chunk.set_data(std::string(bytes, 'd'));
  return chunk;
}

TEST(BadPeer, StreamsThatDoNotFit) {
  const std::vector<std::pair<bool, std::vector<v1::FetchChunk>>> scripts = {
      {true, {HeadOfOneRow(), Data(2000), Data(148)}},
      {false, {}},
      {false, {Data(10)}},
      {false, {HeadOfOneRow()}},
      {false, {HeadOfOneRow(), Data(2147)}},
      {false, {HeadOfOneRow(), Data(2149)}},
      {false, {HeadOfOneRow(), Data(2148), Data(1)}},
      {false, {HeadOfOneRow(), Data(0)}},
      {false, {HeadOfOneRow(), HeadOfOneRow()}},
      {false, {HeadOfOneRow(), Data(kStreamSliceBytes + 1)}},
  };
  for (size_t i = 0; i < scripts.size(); ++i) {
    SCOPED_TRACE(i);
    TestFolder folder;
    ScriptedService service;
    service.chunks = scripts[i].second;
    grpc::ServerBuilder builder;
    const std::string target = "unix:" + folder / "s";
    builder.AddListeningPort(target, grpc::InsecureServerCredentials());
    builder.RegisterService(&service);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    auto cache = ConnectCache(target, RigSpec(), PatientOptions());
    ASSERT_TRUE(cache.ok()) << cache.status();
    const Digest digest;
    const auto prefix = (*cache)->Fetch({.chain = {&digest, 1}});
    EXPECT_EQ(prefix.ok(), scripts[i].first) << prefix.status();
    if (!prefix.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(prefix.status())) << prefix.status();
    }
    service.stop.set_value();
    cache->reset();
    server->Shutdown();
  }
}

// A client that does not use our library.
struct RawClient {
  explicit RawClient(const std::string& target)
      : stub(v1::Cache::NewStub(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()))) {
    v1::SessionRequest request;
    request.set_protocol_version(kProtocolVersion);
    EncodeLayout(RigSpec().layout, request.mutable_layout());
    reader = stub->Session(&session, request);
    v1::SessionEvent event;
    EXPECT_TRUE(reader->Read(&event));
    token = event.registration().token();
  }
  ~RawClient() {
    session.TryCancel();
    reader->Finish();
  }
  std::unique_ptr<v1::Cache::Stub> stub;
  grpc::ClientContext session;
  std::unique_ptr<grpc::ClientReader<v1::SessionEvent>> reader;
  std::string token;
};

TEST(BadPeer, NonsenseFromAClientIsNamed) {
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

TEST(BadPeer, OffsetsAreForThoseWhoMap) {
  ServiceRig rig;
  RawClient client(rig.tcp_target());
  v1::FetchRequest request;
  request.set_token(client.token);
  request.set_chain(std::string(32, 'c'));
  request.set_deadline_millis(1000);
  v1::FetchResponse out;
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

TEST(BadPeer, CommitStreamsThatDoNotFit) {
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

TEST(BadPeer, StagingMustBeSealedAndInBounds) {
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

TEST(BadPeer, ArenaDescriptorsCannotBeWrittenThrough) {
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
