-- Sends one prepared request, again and again. Argument: its file.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  prepared = file:read("*a")
  file:close()
  refused = 0
end

function request()
  return prepared
end

function response(status)
  if status ~= 200 then
    refused = refused + 1
  end
end

function done(summary, latency)
  local refusals = 0
  for _, thread in ipairs(threads) do
    refusals = refusals + thread:get("refused")
  end
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"answers": %d, "refused": %d, "broken": %d, "late": %d, "seconds": %.6f, ' ..
    '"p50_ms": %.4f, "p99_ms": %.4f}\n',
    summary.requests, refusals, errors.connect + errors.read + errors.write, errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
