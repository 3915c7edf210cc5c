-- Reads a part of a channel's log, and how far the log goes: at once, so that the two fit together.
-- KEYS: log, its state. ARGV: the command, the first and the last place, entries at most, how many bytes
-- of each are wanted (-1: all), bytes at most, and whether the first entry may be too large for that; and,
-- if the node has had some of the log, the places where that begins and ends, how many entries that may
-- be, and how many bytes of each it needs to see that they still stand there.
-- Gives the state, whether there is more, and the entries with their places.
local state = redis.call('HMGET', KEYS[2], 'e', 'n')
local rows = {}
local function take(row, cut)
  local entry = ''
  for place = 1, #row[2], 2 do
    if row[2][place] == 'd' then
      entry = row[2][place + 1]
      break
    end
  end
  entry = string.sub(entry, 1, cut)
  rows[#rows + 1] = {row[1], entry}
  return #row[1] + #entry
end
-- A few first: nobody knows how large they are.
local function read(first, last, most, cut, limit, may_be_empty)
  local step, count, bytes = 1, 0, 0
  while count < most do
    local found = redis.pcall(ARGV[1], KEYS[1], first, last, 'COUNT', step)
    if found.err then
      -- Nothing comes after the last place that there can be. Of other errors the node is told.
      local is_end = string.find(found.err, 'invalid start ID', 1, true)
      return 0, not is_end and found
    end
    for _, row in ipairs(found) do
      bytes = bytes + take(row, cut)
      if may_be_empty and bytes > limit then
        rows[#rows] = nil
        return 1
      end
    end
    if #found < step then
      return 0
    end
    count = count + #found
    if bytes >= limit then
      return 1
    end
    first = '(' .. found[#found][1]
    local fitting = math.floor((limit - bytes) / (bytes / count))
    step = math.max(1, math.min(4 * step, most - count, fitting))
  end
  return 1
end
if ARGV[8] then
  read(ARGV[8], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), math.huge)
end
local most, cut, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local more, problem = read(ARGV[2], ARGV[3], most, cut, limit, ARGV[7] == '1')
return problem or {state[1], state[2], more, rows}
