// file_descriptor.h: owner of one kernel file descriptor. Closed on destruction, move only.
//
// Threads:   externally synchronised. Ownership: this owns the descriptor until release().
#ifndef CAIRN_STORE_DEVICE_FILE_DESCRIPTOR_H_
#define CAIRN_STORE_DEVICE_FILE_DESCRIPTOR_H_

#include <fcntl.h>
#include <unistd.h>

#include <utility>

namespace cairn::store {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~FileDescriptor() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

  // A second descriptor of the same open file, close-on-exec. Not valid() when the process has none
  // left (errno says why).
  static FileDescriptor Duplicate(int fd) {
    return FileDescriptor(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  }

 private:
  int fd_ = -1;
};

}  // namespace cairn::store

#endif  // CAIRN_STORE_DEVICE_FILE_DESCRIPTOR_H_
