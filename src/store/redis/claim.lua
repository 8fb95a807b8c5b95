-- A client has come to a node with the id of a session: the session is that node's from now on.
--
-- KEYS[1]  the session's record
-- ARGV     node, token (another one for each client that comes), attempt (the number of the node's connection to this
--          server), time to live in ms, prefix of the nodes' channels, id of the session
-- Returns  {generation, former, count, version, state}: the generation, the one before (0 if there was none), and what was
--          committed last; these three are null if nothing was
--
-- The generation is greater than the stored one, and no less than this server's time in µs: so it is greater than what a
-- living owner has too, if the record was lost. (Doubles hold integers up to 2^53: µs up to the year 2255.)
-- A claim is sent again on the node's next connection, as a later attempt. That gets another generation, because a failover
-- may lie between. If the earlier attempt arrives behind it, it changes nothing; what it answers nobody waits for, and the
-- generation before is not known any more.
local key, node, token, attempt = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local stored = redis.call('HMGET', key, 'generation', 'node', 'token', 'attempt', 'count', 'version',
  'state')
if stored[3] == token and tonumber(stored[4]) >= tonumber(attempt) then
  return {stored[1], '0', stored[5], stored[6], stored[7]}
end
local time = redis.call('TIME')
local generation = math.max((tonumber(stored[1]) or 0) + 1, time[1] * 1000000 + time[2])
generation = string.format('%.0f', generation)
-- Count and state stay.
redis.call('HSET', key, 'generation', generation, 'node', node, 'token', token, 'attempt', attempt, 'from', 0)
redis.call('PEXPIRE', key, ARGV[4])
if stored[2] and stored[2] ~= node then
  redis.call('PUBLISH', ARGV[5] .. stored[2], generation .. ' ' .. ARGV[6])
end
return {generation, stored[1] or '0', stored[5], stored[6], stored[7]}
