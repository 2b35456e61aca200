// tcp_socket.h: TCP sockets as tcp_stream.cc and tls_stream.cc take them. Not for use outside of
// store/device.
//
// Threads: any. Ownership: the descriptors are the caller's. Errors: as byte_stream.h.
#ifndef CAIRN_STORE_DEVICE_TCP_SOCKET_H_
#define CAIRN_STORE_DEVICE_TCP_SOCKET_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "store/base/status.h"
#include "store/device/byte_stream.h"
#include "store/device/file_descriptor.h"

namespace cairn::store {

// What byte_stream.h allows a wait to be.
absl::Duration BoundedWait(absl::Duration timeout);
// Until poll(2) says one of `events` of it. DEADLINE_EXCEEDED naming `what`.
absl::Status WaitForSocket(int fd, short events, absl::Duration timeout, const char* what);

// Connected, blocking, with the settings of a stream.
absl::StatusOr<FileDescriptor> ConnectSocket(const std::string& host, uint16_t port,
                                             absl::Duration timeout);

// A listener whose accepted sockets, as above, become streams.
absl::StatusOr<std::unique_ptr<ByteListener>> ListenOn(const std::string& address,
                                                       StreamOver make_stream);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_TCP_SOCKET_H_
