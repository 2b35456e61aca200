// tls_stream.h: byte_stream.h's streams under TLS 1.3, by OpenSSL; with the kernel's own (kTLS)
// where it has that and OpenSSL can hand the keys over.
//
// A listener's peers show their certificate if it was given authorities; a connecting end always
// checks the listener's, and its name. A listener's handshake is part of the first call on the
// stream, so it costs no one but the peer.
//
// Threads:   as byte_stream.h, but one call at a time on a stream, be it Send or Receive.
// Ownership: a door outlives nothing: streams and listeners may live longer.
// Units:     bytes.
// Errors:    as byte_stream.h; a handshake that fails is UNAVAILABLE and says why. After a Send
// that
//            was DEADLINE_EXCEEDED the stream is of no use, and what a Send did not take comes
//            first, unchanged, in the next one: it may be encrypted already. INVALID_ARGUMENT
//            (TlsStreams) names the part of the credentials that is wrong; NOT_FOUND (ReadTls) the
//            file.
#ifndef CAIRN_STORE_DEVICE_TLS_STREAM_H_
#define CAIRN_STORE_DEVICE_TLS_STREAM_H_

#include <memory>
#include <string>

#include "store/base/status.h"
#include "store/device/byte_stream.h"

namespace cairn::store {

// One end's, in PEM.
struct TlsCredentials {
  std::string certificate = {};  // its own and what leads to its authority; empty: it has none
  std::string key = {};
  std::string authorities = {};  // of the peers' certificates; a listener without any asks for none
};

// The same by the files' paths; "" for what there is not.
absl::StatusOr<TlsCredentials> ReadTls(const std::string& certificate_file,
                                       const std::string& key_file,
                                       const std::string& authorities_file);

// To listen. REQUIRED: certificate and key.
absl::StatusOr<std::unique_ptr<ByteStreamDoor>> TlsListeners(const TlsCredentials& credentials);
// The same for sockets that somebody else accepts.
absl::StatusOr<StreamOver> TlsOver(const TlsCredentials& credentials);
// To connect to peers whose certificate is for `name`, a host's or an address. REQUIRED:
// authorities.
absl::StatusOr<std::unique_ptr<ByteStreamDoor>> TlsConnections(const TlsCredentials& credentials,
                                                               const std::string& name);

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_TLS_STREAM_H_
