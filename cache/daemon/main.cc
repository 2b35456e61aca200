// cairnd: the cache daemon.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "cache/daemon/daemon.h"
#include "cache/daemon/options.h"
#include "store/base/exit_codes.h"
#include "store/base/out_of_memory.h"

int main(int argc, char** argv) {
  cairn::EndWhenOutOfMemory();
  cairn::cache::DaemonText text;
  CLI::App app("cairnd: keeps DeepSeek-V4's KV for prefixes and serves it to engines");
  app.set_version_flag("--version", cairn::cache::kDaemonVersion);
  cairn::cache::AddDaemonFlags(&app, text);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? cairn::kExitOk : cairn::kExitUsage;
  }
  const auto settings = cairn::cache::ParseSettings(text);
  if (!settings.ok()) {
    const std::string message(settings.status().message());
    std::fprintf(stderr, "cairnd: %s\n", message.c_str());
    return cairn::kExitUsage;
  }
  return text.check ? cairn::cache::RunCheck(*settings) : cairn::cache::RunDaemon(*settings);
}
