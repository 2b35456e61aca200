#include "cache/daemon/secrets.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "store/base/limits.h"
#include "store/device/file_descriptor.h"
#include "store/device/secret_file.h"

namespace cairn::cache {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kKeyBytesMin = 16;

absl::Status Trouble(const std::string& what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat(what, " ", path, ": ", std::strerror(errno)));
}

absl::Status WriteSecret(const std::string& path, const std::string& bytes) {
  const std::string temporary = path + ".new";
  const store::FileDescriptor file(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return Trouble("cannot make", temporary);
  const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
  if (written != static_cast<ssize_t>(bytes.size()) || ::fsync(file.get()) != 0) {
    return Trouble("cannot write", temporary);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return Trouble("cannot rename to", path);
  const std::string directory = path.substr(0, path.find_last_of('/') + 1);
  const store::FileDescriptor parent(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent.valid() || ::fsync(parent.get()) != 0) return Trouble("cannot sync", directory);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> LoadOrMakeKey(const std::string& path, Random& random) {
  CAIRN_ASSIGN_OR_RETURN(std::optional<std::string> key, store::ReadSecret(path));
  if (!key.has_value()) {
    key.emplace(kKeyBytes, '\0');
    random.Fill({reinterpret_cast<uint8_t*>(key->data()), key->size()});
    CAIRN_RETURN_IF_ERROR(WriteSecret(path, *key));
  }
  if (key->size() != kKeyBytes) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " has ", key->size(), " bytes instead of ", kKeyBytes,
                     "; without the right one nothing stored can be found"));
  }
  return *std::move(key);
}

absl::StatusOr<std::map<std::string, std::string>> LoadTenantKeys(const std::string& path) {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<std::string> text, store::ReadSecret(path));
  if (!text.has_value()) return absl::NotFoundError(absl::StrCat("no tenant key file ", path));
  std::map<std::string, std::string> keys;
  std::istringstream lines(*text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.empty() || line[0] == '#') continue;
    const size_t split = line.find('=');
    const std::string name = line.substr(0, split);
    std::string key = split == std::string::npos ? "" : line.substr(split + 1);
    if (name.empty() || name.size() > kTenantBytesMax || key.size() < kKeyBytesMin) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", number, ": not 'name=key' with a name of at most ",
                       kTenantBytesMax, " and a key of at least ", kKeyBytesMin, " bytes"));
    }
    const bool hex = key.size() >= 2 * kKeyBytesMin && key.size() % 2 == 0 &&
                     key.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
    if (hex) key = absl::HexStringToBytes(key);
    if (!keys.emplace(name, key).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", number, ": tenant '", name, "' a second time"));
    }
  }
  return keys;
}

}  // namespace cairn::cache
