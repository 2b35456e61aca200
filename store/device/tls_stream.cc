#include "store/device/tls_stream.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <array>
#include <fstream>
#include <iterator>
#include <utility>

#include "store/base/clock.h"
#include "store/device/tcp_socket.h"

namespace cairn::store {
namespace {

struct Free {
  void operator()(BIO* p) const { ::BIO_free(p); }
  void operator()(EVP_PKEY* p) const { ::EVP_PKEY_free(p); }
  void operator()(SSL* p) const { ::SSL_free(p); }
  void operator()(X509* p) const { ::X509_free(p); }
};
using Context = std::shared_ptr<SSL_CTX>;

// What OpenSSL says of the thread's last failure.
std::string Reason() {
  std::array<char, 256> text{};
  const unsigned long error = ::ERR_peek_last_error();
  if (error == 0) return "the connection was closed";
  ::ERR_error_string_n(error, text.data(), text.size());
  const std::string all(text.data());  // "error:0A000086:SSL routines::certificate verify failed"
  return all.substr(all.rfind(':') + 1);
}

absl::Status Wrong(const char* what) {
  return absl::InvalidArgumentError(absl::StrCat("TLS: ", what, ": ", Reason()));
}

std::unique_ptr<BIO, Free> Reading(const std::string& pem) {
  return std::unique_ptr<BIO, Free>(::BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// For a key that wants one: without this OpenSSL would ask at the terminal, and wait.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::Status UseCertificate(SSL_CTX* context, const TlsCredentials& credentials) {
  const auto chain = Reading(credentials.certificate);
  const std::unique_ptr<X509, Free> own(
      ::PEM_read_bio_X509_AUX(chain.get(), nullptr, nullptr, nullptr));
  if (own == nullptr || ::SSL_CTX_use_certificate(context, own.get()) != 1) {
    return Wrong("the certificate is not to be read");
  }
  while (X509* const next = ::PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)) {
    if (::SSL_CTX_add0_chain_cert(context, next) != 1) {
      ::X509_free(next);
      return Wrong("the certificate's chain is not to be used");
    }
  }
  ::ERR_clear_error();  // the chain's end
  const auto reading = Reading(credentials.key);
  const std::unique_ptr<EVP_PKEY, Free> key(
      ::PEM_read_bio_PrivateKey(reading.get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) return Wrong("the key is not to be read");
  if (::SSL_CTX_use_PrivateKey(context, key.get()) != 1 ||
      ::SSL_CTX_check_private_key(context) != 1) {
    return Wrong("the key is not the certificate's");
  }
  return absl::OkStatus();
}

absl::Status TrustAuthorities(SSL_CTX* context, const std::string& pem) {
  const auto reading = Reading(pem);
  int count = 0;
  while (true) {
    const std::unique_ptr<X509, Free> next(
        ::PEM_read_bio_X509(reading.get(), nullptr, nullptr, nullptr));
    if (next == nullptr) break;
    if (::X509_STORE_add_cert(::SSL_CTX_get_cert_store(context), next.get()) != 1) {
      return Wrong("an authority's certificate is not to be used");
    }
    ++count;
  }
  if (count == 0) return Wrong("the authorities are not to be read");
  ::ERR_clear_error();
  return absl::OkStatus();
}

absl::StatusOr<Context> MakeContext(const TlsCredentials& credentials, bool listens) {
  ::ERR_clear_error();
  const Context context(::SSL_CTX_new(listens ? ::TLS_server_method() : ::TLS_client_method()),
                        ::SSL_CTX_free);
  if (context == nullptr) return absl::ResourceExhaustedError("TLS: no memory for a context");
  ::SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  ::SSL_CTX_set_options(context.get(), SSL_OP_ENABLE_KTLS | SSL_OP_NO_RENEGOTIATION);
  ::SSL_CTX_set_mode(context.get(),
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // Header and body of a record by one call. (Of a larger buffer OpenSSL moves the rest at each.)
  ::SSL_CTX_set_read_ahead(context.get(), 1);
  ::SSL_CTX_set_num_tickets(context.get(), 0);  // connections are kept, not resumed
  if (listens || !credentials.certificate.empty()) {
    CAIRN_RETURN_IF_ERROR(UseCertificate(context.get(), credentials));
  }
  if (!listens || !credentials.authorities.empty()) {
    CAIRN_RETURN_IF_ERROR(TrustAuthorities(context.get(), credentials.authorities));
    ::SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  return context;
}

// OpenSSL writes to sockets without MSG_NOSIGNAL, and this may be anyone's process: for a call, the
// signal of a peer that has gone is kept from it.
class NoSigpipe {
 public:
  NoSigpipe() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    ::sigpending(&pending);
    had_ = ::sigismember(&pending, SIGPIPE) == 1;
    if (!had_) ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoSigpipe() {
    if (had_) return;
    const timespec none{};
    ::sigtimedwait(&pipe_, nullptr, &none);
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSigpipe(const NoSigpipe&) = delete;

 private:
  sigset_t pipe_{}, before_{};
  bool had_ = false;
};

class TlsStream final : public ByteStream {
 public:
  // `fd`: not blocking.
  TlsStream(Context context, std::unique_ptr<SSL, Free> ssl, FileDescriptor fd)
      : context_(std::move(context)), ssl_(std::move(ssl)), fd_(std::move(fd)) {}
  ~TlsStream() override { SayGoodbye(); }

  absl::StatusOr<size_t> Send(std::span<const uint8_t> bytes, absl::Duration timeout) override {
    return InRecords("send", timeout, bytes.size(), [&](size_t done, size_t* more) {
      return ::SSL_write_ex(ssl_.get(), bytes.data() + done, bytes.size() - done, more);
    });
  }
  absl::StatusOr<size_t> Receive(std::span<uint8_t> room, absl::Duration timeout) override {
    return InRecords("receive", timeout, room.size(), [&](size_t done, size_t* more) {
      return ::SSL_read_ex(ssl_.get(), room.data() + done, room.size() - done, more);
    });
  }
  absl::Status Handshake(absl::Duration timeout) {
    return Until("handshake", timeout, [&] { return ::SSL_do_handshake(ssl_.get()); });
  }
  void EndSending() override {
    SayGoodbye();
    ::shutdown(fd_.get(), SHUT_WR);
  }
  void Shutdown() override { ::shutdown(fd_.get(), SHUT_RDWR); }
  SSL* ssl() const { return ssl_.get(); }

 private:
  // If that can be done at once.
  void SayGoodbye() {
    const NoSigpipe quiet;
    ::ERR_clear_error();
    if (!failed_) ::SSL_shutdown(ssl_.get());
  }
  // Waits for one record, then does as many more as there is no need to wait for.
  template <typename Call>
  absl::StatusOr<size_t> InRecords(const char* what, absl::Duration timeout, size_t bytes,
                                   Call call) {
    size_t done = 0;
    CAIRN_RETURN_IF_ERROR(Until(what, timeout, [&] { return call(0, &done); }));
    const NoSigpipe quiet;
    ::ERR_clear_error();  // what fails now fails again when it is waited for
    for (size_t more = 0; done < bytes && call(done, &more) == 1; more = 0) done += more;
    return done;
  }
  // Does it, waiting for the socket in between, however slowly the peer drips.
  template <typename Call>
  absl::Status Until(const char* what, absl::Duration timeout, Call call) {
    const int64_t end = RealClock().NowNanos() + absl::ToInt64Nanoseconds(BoundedWait(timeout));
    while (true) {
      int error = SSL_ERROR_NONE;
      {
        const NoSigpipe quiet;
        ::ERR_clear_error();
        const int result = call();
        if (result == 1) return absl::OkStatus();
        error = ::SSL_get_error(ssl_.get(), result);
      }
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
        failed_ = true;
        return absl::UnavailableError(absl::StrCat(what, ": TLS: ", Reason()));
      }
      const absl::Duration left = absl::Nanoseconds(end - RealClock().NowNanos());
      if (left <= absl::ZeroDuration()) {
        return absl::DeadlineExceededError(absl::StrCat(what, ": nothing came of it in time"));
      }
      CAIRN_RETURN_IF_ERROR(WaitForSocket(
          fd_.get(), error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, BoundedWait(left), what));
    }
  }

  const Context context_;
  const std::unique_ptr<SSL, Free> ssl_;
  const FileDescriptor fd_;
  bool failed_ = false;
};

absl::StatusOr<std::unique_ptr<TlsStream>> Over(const Context& context, FileDescriptor fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  std::unique_ptr<SSL, Free> ssl(::SSL_new(context.get()));
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0 || ssl == nullptr ||
      ::SSL_set_fd(ssl.get(), fd.get()) != 1) {
    return absl::ResourceExhaustedError("TLS: no memory for a connection");
  }
  return std::make_unique<TlsStream>(context, std::move(ssl), std::move(fd));
}

StreamOver AcceptingOver(const Context& context) {
  return [context](FileDescriptor fd) -> absl::StatusOr<std::unique_ptr<ByteStream>> {
    CAIRN_ASSIGN_OR_RETURN(auto stream, Over(context, std::move(fd)));
    ::SSL_set_accept_state(stream->ssl());
    return stream;
  };
}

class Listeners final : public ByteStreamDoor {
 public:
  explicit Listeners(Context context) : context_(std::move(context)) {}
  absl::StatusOr<std::unique_ptr<ByteListener>> Listen(const std::string& address) override {
    return ListenOn(address, AcceptingOver(context_));
  }
  absl::StatusOr<std::unique_ptr<ByteStream>> Connect(const std::string&, uint16_t,
                                                      absl::Duration) override {
    return absl::FailedPreconditionError("TLS: these credentials are for listening");
  }

 private:
  const Context context_;
};

bool IsAddress(const std::string& name) {
  std::array<uint8_t, sizeof(in6_addr)> address{};
  return ::inet_pton(AF_INET, name.c_str(), address.data()) == 1 ||
         ::inet_pton(AF_INET6, name.c_str(), address.data()) == 1;
}

class Connections final : public ByteStreamDoor {
 public:
  Connections(Context context, std::string name)
      : context_(std::move(context)), name_(std::move(name)) {}
  absl::StatusOr<std::unique_ptr<ByteListener>> Listen(const std::string&) override {
    return absl::FailedPreconditionError("TLS: these credentials are for connecting");
  }
  absl::StatusOr<std::unique_ptr<ByteStream>> Connect(const std::string& host, uint16_t port,
                                                      absl::Duration timeout) override {
    const int64_t end = RealClock().NowNanos() + absl::ToInt64Nanoseconds(BoundedWait(timeout));
    CAIRN_ASSIGN_OR_RETURN(FileDescriptor fd, ConnectSocket(host, port, timeout));
    CAIRN_ASSIGN_OR_RETURN(auto stream, Over(context_, std::move(fd)));
    SSL* const ssl = stream->ssl();
    const bool named = IsAddress(name_) ? ::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(ssl),
                                                                          name_.c_str()) == 1
                                        : ::SSL_set1_host(ssl, name_.c_str()) == 1 &&
                                              ::SSL_set_tlsext_host_name(ssl, name_.c_str()) == 1;
    if (!named) return absl::InvalidArgumentError(absl::StrCat("TLS: '", name_, "' is no name"));
    ::SSL_set_connect_state(ssl);
    CAIRN_RETURN_IF_ERROR(stream->Handshake(absl::Nanoseconds(end - RealClock().NowNanos())));
    return stream;
  }

 private:
  const Context context_;
  const std::string name_;
};

absl::StatusOr<std::string> ReadAll(const std::string& path) {
  if (path.empty()) return "";
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad() || text.empty()) {
    return absl::NotFoundError(absl::StrCat("TLS: ", path, " is not to be read, or is empty"));
  }
  return text;
}

}  // namespace

absl::StatusOr<TlsCredentials> ReadTls(const std::string& certificate_file,
                                       const std::string& key_file,
                                       const std::string& authorities_file) {
  TlsCredentials credentials;
  CAIRN_ASSIGN_OR_RETURN(credentials.certificate, ReadAll(certificate_file));
  CAIRN_ASSIGN_OR_RETURN(credentials.key, ReadAll(key_file));
  CAIRN_ASSIGN_OR_RETURN(credentials.authorities, ReadAll(authorities_file));
  return credentials;
}

absl::StatusOr<std::unique_ptr<ByteStreamDoor>> TlsListeners(const TlsCredentials& credentials) {
  CAIRN_ASSIGN_OR_RETURN(Context context, MakeContext(credentials, /*listens=*/true));
  return std::make_unique<Listeners>(std::move(context));
}

absl::StatusOr<StreamOver> TlsOver(const TlsCredentials& credentials) {
  CAIRN_ASSIGN_OR_RETURN(const Context context, MakeContext(credentials, /*listens=*/true));
  return AcceptingOver(context);
}

absl::StatusOr<std::unique_ptr<ByteStreamDoor>> TlsConnections(const TlsCredentials& credentials,
                                                               const std::string& name) {
  CAIRN_ASSIGN_OR_RETURN(Context context, MakeContext(credentials, /*listens=*/false));
  return std::make_unique<Connections>(std::move(context), name);
}

}  // namespace cairn::store
