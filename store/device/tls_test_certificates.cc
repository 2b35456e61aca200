#include "store/device/tls_test_certificates.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <cstdlib>

namespace cairn::store {
namespace {

struct Free {
  void operator()(BIO* p) const { ::BIO_free(p); }
  void operator()(EVP_PKEY* p) const { ::EVP_PKEY_free(p); }
  void operator()(X509* p) const { ::X509_free(p); }
};
using Key = std::unique_ptr<EVP_PKEY, Free>;
using Certificate = std::unique_ptr<X509, Free>;

void Must(bool done) {
  if (done) return;
  std::fputs("OpenSSL makes no certificates here\n", stderr);
  std::abort();
}

void AddExtension(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  ::X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = ::X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
  Must(extension != nullptr && ::X509_add_ext(certificate, extension, -1) == 1);
  ::X509_EXTENSION_free(extension);
}

// Unsigned.
Certificate Blank(const std::string& name, EVP_PKEY* key, X509* issuer, int days) {
  Certificate certificate(::X509_new());
  Must(certificate != nullptr);
  static long serial = 0;
  ::X509_set_version(certificate.get(), 2);
  ::ASN1_INTEGER_set(::X509_get_serialNumber(certificate.get()), ++serial);
  ::X509_gmtime_adj(::X509_getm_notBefore(certificate.get()), -10 * 86'400L);
  ::X509_gmtime_adj(::X509_getm_notAfter(certificate.get()), days * 86'400L);
  ::X509_set_pubkey(certificate.get(), key);
  X509_NAME* const subject = ::X509_get_subject_name(certificate.get());
  Must(::X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                    reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                                    0) == 1);
  ::X509_set_issuer_name(certificate.get(),
                         issuer == nullptr ? subject : ::X509_get_subject_name(issuer));
  return certificate;
}

template <typename Write>
std::string Pem(Write write) {
  const std::unique_ptr<BIO, Free> out(::BIO_new(::BIO_s_mem()));
  Must(out != nullptr && write(out.get()) == 1);
  char* data = nullptr;
  const long bytes = ::BIO_get_mem_data(out.get(), &data);
  return std::string(data, static_cast<size_t>(bytes));
}

}  // namespace

struct TestAuthority::Parts {
  Key key{EVP_EC_gen("P-256")};
  Certificate certificate = Blank("a test's authority", key.get(), nullptr, 1);
};

TestAuthority::TestAuthority() : parts_(std::make_unique<Parts>()) {
  X509* const own = parts_->certificate.get();
  AddExtension(own, own, NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(own, own, NID_subject_key_identifier, "hash");
  Must(::X509_sign(own, parts_->key.get(), ::EVP_sha256()) > 0);
  certificate_ = Pem([&](BIO* out) { return ::PEM_write_bio_X509(out, own); });
}

TestAuthority::~TestAuthority() = default;

TlsCredentials TestAuthority::Issue(const std::string& names, int days) const {
  const Key key(EVP_EC_gen("P-256"));
  const Certificate made = Blank("a test's", key.get(), parts_->certificate.get(), days);
  AddExtension(made.get(), parts_->certificate.get(), NID_subject_alt_name, names);
  Must(::X509_sign(made.get(), parts_->key.get(), ::EVP_sha256()) > 0);
  return {.certificate = Pem([&](BIO* out) { return ::PEM_write_bio_X509(out, made.get()); }),
          .key = Pem([&](BIO* out) {
            return ::PEM_write_bio_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr,
                                              nullptr);
          }),
          .authorities = certificate_};
}

std::string TestAuthority::Encrypted(const std::string& key) {
  const std::unique_ptr<BIO, Free> in(::BIO_new_mem_buf(key.data(), static_cast<int>(key.size())));
  const Key read(::PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  Must(read != nullptr);
  const unsigned char passphrase[] = {'s', 'e', 's', 'a', 'm', 'e'};
  return Pem([&](BIO* out) {
    return ::PEM_write_bio_PrivateKey(out, read.get(), ::EVP_aes_256_cbc(), passphrase,
                                      sizeof(passphrase), nullptr, nullptr);
  });
}

}  // namespace cairn::store
