// Goal: both socket doors carry whole messages and descriptors, bound what they take, and can be
// unblocked. Method: one suite over both doors; the Unix one on a path of its own folder.
#include "store/device/socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "store/device/shared_memory.h"

namespace cairn::store {
namespace {

using ::testing::HasSubstr;

class SocketTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/cairn_socket_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ + "/s";
  }
  void TearDown() override {
    ::unlink(path_.c_str());
    ::rmdir(folder_.c_str());
  }
  SocketDoor& door() { return GetParam() ? UnixSockets() : memory_; }

  void Pair(std::unique_ptr<Listener>* listener, std::unique_ptr<Connection>* client,
            std::unique_ptr<Connection>* server) {
    auto listening = door().Listen(path_);
    ASSERT_TRUE(listening.ok()) << listening.status();
    *listener = *std::move(listening);
    auto connected = door().Connect(path_, absl::Seconds(5));
    ASSERT_TRUE(connected.ok()) << connected.status();
    *client = *std::move(connected);
    auto accepted = (*listener)->Accept();
    ASSERT_TRUE(accepted.ok()) << accepted.status();
    *server = *std::move(accepted);
  }

  MemorySockets memory_;
  std::string folder_;
  std::string path_;
};

INSTANTIATE_TEST_SUITE_P(Doors, SocketTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Unix" : "Memory"; });

std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }

TEST_P(SocketTest, CarriesMessagesWholeAndInOrder) {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client, server;
  Pair(&listener, &client, &server);
  ASSERT_TRUE(client->Send(Bytes("one"), -1, absl::Seconds(5)).ok());
  ASSERT_TRUE(
      client->Send(std::vector<uint8_t>(kSocketMessageBytesMax, 7), -1, absl::Seconds(5)).ok());
  auto first = server->Receive(100, absl::Seconds(5));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->bytes, Bytes("one"));
  EXPECT_FALSE(first->descriptor.valid());
  auto second = server->Receive(kSocketMessageBytesMax, absl::Seconds(5));
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->bytes.size(), kSocketMessageBytesMax);
  ASSERT_TRUE(server->Send(Bytes("back"), -1, absl::Seconds(5)).ok());
  EXPECT_EQ(client->Receive(100, absl::Seconds(5))->bytes, Bytes("back"));
}

TEST_P(SocketTest, CarriesADescriptorOfTheSameMemory) {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client, server;
  Pair(&listener, &client, &server);
  auto memory = SharedMemory::Create("test", {.bytes = 8192});
  ASSERT_TRUE(memory.ok()) << memory.status();
  memory->writable()[5000] = 42;
  ASSERT_TRUE(server->Send(Bytes("arena"), memory->descriptor(), absl::Seconds(5)).ok());
  auto message = client->Receive(100, absl::Seconds(5));
  ASSERT_TRUE(message.ok()) << message.status();
  ASSERT_TRUE(message->descriptor.valid());
  EXPECT_EQ(::fcntl(message->descriptor.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  auto mapped = SharedMemory::MapReadOnly(std::move(message->descriptor), 8192);
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  EXPECT_EQ(mapped->bytes()[5000], 42);
}

TEST_P(SocketTest, RefusesMessagesOverTheBound) {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client, server;
  Pair(&listener, &client, &server);
  const std::vector<uint8_t> long_message(kSocketMessageBytesMax + 1);
  EXPECT_EQ(client->Send(long_message, -1, absl::Seconds(1)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client->Send({}, -1, absl::Seconds(1)).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(client->Send(Bytes("four"), -1, absl::Seconds(5)).ok());
  EXPECT_EQ(server->Receive(3, absl::Seconds(5)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(SocketTest, WaitsAreBounded) {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client, server;
  Pair(&listener, &client, &server);
  EXPECT_EQ(server->Receive(3, absl::Milliseconds(5)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(server->Receive(3, absl::ZeroDuration()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  // A peer that never reads fills the queue, and then a send ends at its deadline too.
  absl::Status sent;
  for (int i = 0; i < 1000 && sent.ok(); ++i) {
    sent = client->Send(std::vector<uint8_t>(4096), -1, absl::Milliseconds(5));
  }
  EXPECT_EQ(sent.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_P(SocketTest, AClosedPeerIsUnavailable) {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client, server;
  Pair(&listener, &client, &server);
  client.reset();
  EXPECT_EQ(server->Receive(10, absl::Seconds(5)).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(server->Send(Bytes("x"), -1, absl::Seconds(5)).code(), absl::StatusCode::kUnavailable);
}

TEST_P(SocketTest, ShutdownUnblocksAcceptAndReceive) {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client, server;
  Pair(&listener, &client, &server);
  absl::Status accepted, received;
  std::thread accepting([&] { accepted = listener->Accept().status(); });
  std::thread receiving([&] { received = server->Receive(10, absl::InfiniteDuration()).status(); });
  listener->Shutdown();
  server->Shutdown();
  accepting.join();
  receiving.join();
  EXPECT_EQ(accepted.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(received.code(), absl::StatusCode::kUnavailable);
}

TEST_P(SocketTest, NamesItsPeer) {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client, server;
  Pair(&listener, &client, &server);
  auto peer = server->Peer();
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(peer->pid, ::getpid());
  EXPECT_EQ(peer->uid, ::getuid());
}

TEST_P(SocketTest, ALivePathIsRefusedAndAFreedOneTaken) {
  auto first = door().Listen(path_);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = door().Listen(path_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(path_));
  first->reset();
  EXPECT_TRUE(door().Listen(path_).ok());
  EXPECT_EQ(door().Connect(path_, absl::Seconds(1)).status().code(),
            absl::StatusCode::kUnavailable);
}

sockaddr_un Address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  return address;
}

class UnixSocketTest : public SocketTest {};
INSTANTIATE_TEST_SUITE_P(Unix, UnixSocketTest, ::testing::Values(true));

TEST_P(UnixSocketTest, ReplacesAStaleSocketButNoOtherFile) {
  {
    FileDescriptor dead(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
    const sockaddr_un address = Address(path_);
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }  // closed without unlink, as after kill -9
  {
    auto listener = door().Listen(path_);
    ASSERT_TRUE(listener.ok()) << listener.status();
    struct stat info {};
    ASSERT_EQ(::stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
  }
  std::ofstream(path_) << "precious";
  EXPECT_EQ(door().Listen(path_).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(::access(path_.c_str(), F_OK), 0);
}

TEST_P(UnixSocketTest, RefusesAPathThatIsTooLong) {
  auto listener = door().Listen("/tmp/" + std::string(200, 'x'));
  EXPECT_EQ(listener.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(UnixSocketTest, RefusesTwoDescriptorsAndLeaksNone) {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> unused, unused_server;
  Pair(&listener, &unused, &unused_server);
  FileDescriptor raw(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const sockaddr_un address = Address(path_);
  ASSERT_EQ(::connect(raw.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  auto server = listener->Accept();
  ASSERT_TRUE(server.ok());

  const int two[2] = {0, 1};
  char byte = 'x';
  iovec slice{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(two))] = {};
  msghdr header{};
  header.msg_iov = &slice;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  cmsghdr* c = CMSG_FIRSTHDR(&header);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(two));
  std::memcpy(CMSG_DATA(c), two, sizeof(two));
  ASSERT_EQ(::sendmsg(raw.get(), &header, 0), 1);

  const int lowest_free = FileDescriptor::Duplicate(0).get();
  EXPECT_EQ((*server)->Receive(10, absl::Seconds(5)).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FileDescriptor::Duplicate(0).get(), lowest_free);
}

}  // namespace
}  // namespace cairn::store
