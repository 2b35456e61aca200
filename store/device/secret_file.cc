#include "store/device/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "store/device/file_descriptor.h"

namespace cairn::store {
namespace {

constexpr off_t kFileBytesMax = 1 << 20;

absl::Status Trouble(const std::string& what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat(what, " ", path, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<std::optional<std::string>> ReadSecret(const std::string& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    if (errno == ENOENT) return std::nullopt;
    return Trouble("cannot read", path);
  }
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) return Trouble("cannot examine", path);
  if ((info.st_mode & 077) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " holds secrets but others may use it; chmod 600 it"));
  }
  if (info.st_size > kFileBytesMax)
    return absl::InvalidArgumentError(absl::StrCat(path, " is over 1 MiB"));
  std::string text(static_cast<size_t>(info.st_size), '\0');
  if (::read(file.get(), text.data(), text.size()) != info.st_size)
    return Trouble("cannot read", path);
  return text;
}

}  // namespace cairn::store
