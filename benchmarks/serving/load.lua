-- Sends prepared requests in turn and writes down every answer not yet seen for its picture.
--
-- wrk must be given as many threads as connections: a thread then has one connection, and what
-- it receives answers what it sent last. Picture p belongs to thread p mod threads, so that two
-- requests in flight are never of one picture, and answers that change places are noticed.
-- Arguments: the file of requests, a folder for answers, the number of threads.

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(arguments)
  local count = tonumber(arguments[3])
  requests, pictures, seen, turn, refused = {}, {}, {}, 0, 0
  local file = assert(io.open(arguments[1], "rb"))
  local picture = 0
  while true do
    local length = file:read("*n", 1)
    if not length then break end
    length = tonumber(length)
    if picture % count == number then
      table.insert(requests, file:read(length))
      table.insert(pictures, picture)
      table.insert(seen, {})
    else
      file:seek("cur", length)
    end
    picture = picture + 1
  end
  file:close()
  answers = assert(io.open(arguments[2] .. "/" .. number, "wb"))
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function response(status, headers, body)
  if status ~= 200 then
    refused = refused + 1
  elseif not seen[turn][body] then
    seen[turn][body] = true
    answers:write(pictures[turn], " ", #body, "\n", body)
    answers:flush()
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
