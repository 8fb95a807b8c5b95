-- A session ends: the application or the table has given it up.
--
-- KEYS[1]  the session's record
-- ARGV     generation, for how many ms the tombstone stays
-- Returns  S (forgotten) or T (taken over by another claim)
--
-- What is left is a tombstone: the next generation, and nothing else. It refuses what the same owner has sent before and what
-- arrives later, and would bring the session back. It has to outlast what may be under way on a connection that was cut.
-- A call that is sent again finds the tombstone that it has left: a record of the next generation without a node.
local record = redis.call('HMGET', KEYS[1], 'generation', 'node')
local stored = tonumber(record[1]) or 0
local generation = tonumber(ARGV[1])
if stored > generation and (record[2] or stored ~= generation + 1) then
  return 'T'
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'generation', string.format('%.0f', generation + 1))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'S'
