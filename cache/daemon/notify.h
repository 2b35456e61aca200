// notify.h: the two lines that systemd wants to hear of a Type=notify service.
//
// Threads: any. Does nothing when no service manager listens (NOTIFY_SOCKET is not set).
#ifndef CAIRN_CACHE_DAEMON_NOTIFY_H_
#define CAIRN_CACHE_DAEMON_NOTIFY_H_

#include <string>

namespace cairn::cache {

void NotifyServiceManager(const std::string& state);

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_DAEMON_NOTIFY_H_
