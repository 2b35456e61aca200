// tls_test_certificates.h: an authority of a test's own, and certificates of it.
//
// Threads: one. For tests and benchmarks only. Errors: CHECK-like: a test that cannot have them
// ends.
#ifndef CAIRN_STORE_DEVICE_TLS_TEST_CERTIFICATES_H_
#define CAIRN_STORE_DEVICE_TLS_TEST_CERTIFICATES_H_

#include <memory>
#include <string>

#include "store/device/tls_stream.h"

namespace cairn::store {

class TestAuthority {
 public:
  TestAuthority();
  ~TestAuthority();

  // In PEM.
  const std::string& certificate() const { return certificate_; }
  // Certificate and key for `names`, as "DNS:a.b,IP:127.0.0.1"; `days` < 0: of the past. With this
  // authority as the one of the peers'.
  TlsCredentials Issue(const std::string& names, int days = 1) const;
  // The same key under a passphrase.
  static std::string Encrypted(const std::string& key);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
  std::string certificate_;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_TLS_TEST_CERTIFICATES_H_
